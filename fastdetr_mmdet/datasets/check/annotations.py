"""Check an annotation file without its images: lists, ids, references, boxes."""

from __future__ import annotations

import difflib
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from .read import LISTS, as_id, is_file_name, number, require_lists, shown
from .report import MAX_ASPECT, Report

MOST_PIXELS = 2**20  # maximum side that OpenCV reads
LARGEST = 1e7  # larger coordinates are errors
BORDER = 1.0  # COCO's own boxes extend slightly beyond images, by rounding
# Minimum number of boxes to recognise another format, if all look like it, and minimum share of
# boxes that are impossible as (x, y, width, height) to recognise corners.
ENOUGH_BOXES, SENSELESS_SHARE = 8, 1 / 3


def check_annotations(
    coco: Any,
    source: str = "annotations",
    classes: Sequence[str] | None = None,
    evaluated: bool = True,
    max_aspect: float = MAX_ASPECT,
) -> Report:
    """Check parsed COCO annotations; their content may be anything.

    Args:
        coco: Parsed JSON.
        source: The file's name, for messages.
        classes: ``metainfo.classes`` of a config; None: all categories are trained.
        evaluated: Whether to check requirements of evaluation, too.
        max_aspect: Longest side over shortest side of an extreme box or image.

    Raises:
        NotCocoError: if one of COCO's three lists is missing.
    """
    require_lists(coco, source)
    report = Report(source, coco, max_aspect)
    _check_boxes(report, _check_images(report), _check_categories(report, classes), evaluated)
    return report


class _Images(NamedTuple):
    sizes: dict[int, tuple[float, float]]  # (width, height) in pixels by position
    position_of: dict[Any, int]  # by id; mmdet uses the last of equal ids
    by_file: dict[str, list[int]]


class _Category(NamedTuple):
    position: int
    trained: bool


class _Box(NamedTuple):
    position: int
    image: int  # position; -1 if there is none
    category: _Category | None
    bbox: Sequence[float]  # x, y, width, height in pixels; empty if unusable
    area: float
    crowd: bool
    ignored: bool


def _entries(report: Report, subject: str) -> Iterator[tuple[int, dict, Any]]:
    """Yield position, value and id (or None) of JSON objects; report other entries."""
    entries = report.coco[subject]
    letters = {type(entry.get("id")) for entry in entries if isinstance(entry, dict)} == {str}
    letters = letters and subject != "annotations"
    if letters:
        report.add("ids-in-letters", note=f"ids of '{subject}'")
    if not entries and subject != "annotations":
        report.add(f"no-{subject}", note=f"'{subject}' is an empty list")
    for position, entry in enumerate(entries):
        if isinstance(entry, dict):
            yield position, entry, as_id(entry.get("id"), letters)
        else:
            report.add(f"{LISTS[subject]}-malformed", position, f"it is {shown(entry, 40)}")


def _add_repeated(report: Report, kind: str, positions_of: Mapping[Any, list[int]]) -> None:
    """Report entries that share an id or name."""
    for positions in positions_of.values():
        for position in positions if len(positions) > 1 else ():
            report.add(kind, position)


def _check_images(report: Report) -> _Images:
    images = _Images({}, {}, defaultdict(list))
    positions_of: dict[Any, list[int]] = defaultdict(list)
    for position, entry, image_id in _entries(report, "images"):
        if image_id is None:
            report.add("image-id", position)
        else:
            positions_of[image_id].append(position)
            images.position_of[image_id] = position
        name = entry.get("file_name")
        if is_file_name(name):
            images.by_file[os.path.normpath(name)].append(position)
        else:
            report.add("file-name", position)
        size = number(entry.get("width")), number(entry.get("height"))
        usable = all(0 < side <= MOST_PIXELS for side in size)
        if not usable or any(side % 1 for side in size):
            sides = [
                shown(entry[key], 20, repr) if key in entry else "missing"
                for key in ("width", "height")
            ]
            report.add("image-size", position, " x ".join(sides))
        if usable:
            images.sizes[position] = size
            if max(size) > report.max_aspect * min(size):
                report.add("image-aspect", position, _times(size))
    _add_repeated(report, "image-id-twice", positions_of)
    return images


def _check_categories(report: Report, classes: Sequence[str] | None) -> dict[Any, _Category]:
    """Usable categories by id; the first one of equal ids."""
    found: dict[Any, _Category] = {}
    by_id: dict[Any, list[int]] = defaultdict(list)
    by_name: dict[str, list[int]] = defaultdict(list)
    for position, entry, category_id in _entries(report, "categories"):
        name = entry.get("name")
        if category_id is None or type(name) is not str:
            report.add("category-malformed", position)
            continue
        trained = classes is None or name in classes
        found.setdefault(category_id, _Category(position, trained))
        by_id[category_id].append(position)
        by_name[name].append(position)
        if not trained:
            report.add("category-not-in-classes", position)
    _add_repeated(report, "category-id-twice", by_id)
    _add_repeated(report, "category-name-twice", by_name)
    by_case: dict[str, list[int]] = defaultdict(list)
    for name, (first, *_) in by_name.items():
        by_case[name.casefold()].append(first)
    _add_repeated(report, "category-case", by_case)
    for before, after in pairwise(sorted(i for i in found if isinstance(i, int))):
        if after - before > 1:
            last = f" to {after - 1}" if after - before > 2 else ""
            report.add("category-gap", note=f"{before + 1}{last}")
    names = list(by_name)
    for name in classes or ():
        if name not in names:
            report.add("class-without-category", note=missing_class(name, names))
    # mmdet numbers classes in the file's order
    in_file = [name for name in names if name in (classes or ())]
    if in_file != [name for name in dict.fromkeys(classes or ()) if name in names]:
        order = ", ".join(shown(name, 20) for name in in_file[:8])
        more = ", ..." if len(in_file) > 8 else ""
        report.add("class-order", note=f"the file's order, to set there, is {order}{more}")
    return found


def similar_name(name: Any, names: Sequence[str]) -> str | None:
    """The most similar of some names, if there is one."""
    folded = {other.casefold(): other for other in names}
    close = difflib.get_close_matches(str(name).casefold(), folded, 1)
    return folded[close[0]] if close else None


def missing_class(name: Any, names: Sequence[str]) -> str:
    """Describe a missing class and its likely name in the dataset."""
    similar = similar_name(name, names)
    known = [similar] if similar else names[:8]
    text = f"{shown(name, 40, repr)}; the file has {', '.join(shown(n, 40, repr) for n in known)}"
    if isinstance(name, str):
        return text
    return (
        f"{text}, and --cfg-options turns it into a {type(name).__name__}: set metainfo.classes in "
        "a config file"
    )


def _check_boxes(
    report: Report, images: _Images, categories: dict[Any, _Category], evaluated: bool
) -> None:
    """Check the annotations: values, then boxes within their images."""
    rows: list[_Box] = []
    ids: set[Any] = set()
    contents: dict[int, set[tuple]] = defaultdict(set)  # of images
    for position, entry, own_id in _entries(report, "annotations"):
        image = images.position_of.get(as_id(entry.get("image_id"), letters=True), -1)
        category = categories.get(as_id(entry.get("category_id"), letters=True))
        crowd, ignored = entry.get("iscrowd", 0), bool(entry.get("ignore"))
        bbox = _four_numbers(entry.get("bbox"))
        finite = all(abs(value) <= LARGEST for value in bbox)
        content = (category, *(bbox if finite else ()))
        known = bool(bbox) and finite and category is not None and image >= 0
        found = {
            "annotation-id": own_id is None,
            "annotation-id-twice": own_id is not None and own_id in ids,
            "annotation-id-zero": own_id == 0 and evaluated,
            "unknown-image": image < 0,
            "unknown-category": category is None,
            "iscrowd": not (isinstance(crowd, (int, float)) and crowd in (0, 1)),
            "iscrowd-missing": "iscrowd" not in entry and evaluated,
            "marked-ignore": ignored,
            "bbox-malformed": not bbox,
            "bbox-not-finite": not finite,
            "bbox-twice": known and content in contents[image],
        }
        for kind, wrong in found.items():
            if wrong:
                report.add(kind, position)
        ids.add(own_id)
        if image >= 0:
            contents[image].add(content)
        bbox, area = bbox if finite else [], number(entry.get("area"))
        rows.append(_Box(position, image, category, bbox, area, bool(crowd), ignored))

    in_pixels = _check_format(report, images, rows)
    crowds_in: dict[int, set[bool]] = defaultdict(set)  # image -> iscrowd of its usable boxes
    used: set[_Category] = set()
    for row in rows:
        whole = bool(row.bbox)
        if row.bbox and in_pixels:
            whole = _check_geometry(report, row, images.sizes.get(row.image))
        known_area = abs(row.area) <= LARGEST**2
        # a box without extent needs no positive area
        if row.bbox and not (known_area and (row.area > 0 or not whole)):
            report.add("area", row.position)
        if row.image < 0:
            continue  # mmdet does not read it
        usable = whole and min(row.bbox[2:]) >= 1 and known_area and row.area > 0
        if usable and not row.ignored and row.category and row.category.trained:
            crowds_in[row.image].add(row.crowd)
            used.add(row.category)
        else:
            report.skipped += 1
    if in_pixels:
        for position, image_entry in enumerate(report.coco["images"]):
            if isinstance(image_entry, dict) and False not in crowds_in.get(position, ()):
                report.add(
                    "image-crowds-only" if position in crowds_in else "image-empty", position
                )
        for category in categories.values():
            if category.trained and category not in used:
                report.add("category-unused", category.position)
    for first, *others in images.by_file.values():
        for other in others:
            same = contents[other] == contents[first]
            note = f"same file as {report.name('images', first)}"
            report.add("file-twice" if same else "file-shared", other, note)


def _four_numbers(value: Any) -> list[float]:
    if type(value) is list and len(value) == 4 and all(type(v) in (int, float) for v in value):
        return [number(v) for v in value]
    return []


def _check_geometry(report: Report, row: _Box, size: tuple[float, float] | None) -> bool:
    """Check a box in an image of (width, height); True if it has an area within."""
    x, y, w, h = row.bbox
    width, height = size or (math.inf, math.inf)
    outside = min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0)
    empty = {"bbox-negative": min(w, h) < 0, "bbox-zero": min(w, h) == 0, "bbox-outside": outside}
    kinds = [kind for kind, wrong in empty.items() if wrong][:1]
    whole = not kinds
    if whole:
        if min(w, h) < 1:
            kinds = ["bbox-subpixel"]
        elif max(w, h) > report.max_aspect * min(w, h):
            kinds = ["bbox-aspect"]
        if min(x, y) < -BORDER or x + w > width + BORDER or y + h > height + BORDER:
            kinds.append("bbox-partly-outside")
    for kind in kinds:
        inside = f" in {_times(size)}" if size else ""
        note = f"bbox {[round(value, 2) for value in row.bbox]}{inside}"
        report.add(kind, row.position, note)
    return whole


def _check_format(report: Report, images: _Images, rows: Sequence[_Box]) -> bool:
    """Report boxes that all have another format; return False if so."""
    import numpy as np  # late, to keep --help fast

    sized = [row for row in rows if row.bbox and row.image in images.sizes]
    if len(sized) < ENOUGH_BOXES:
        return True
    boxes = np.array([row.bbox for row in sized])
    sizes = np.array([images.sizes[row.image] for row in sized])
    start, end = boxes[:, :2], boxes[:, 2:]  # in the formats with size, `end` is the size
    if boxes.min() >= 0 and (start + end).max() <= 1 + 1e-3 and end.max() > 0:
        kind, example = "boxes-as-fractions", sized[0]
    elif ((start >= -BORDER) & (start < end) & (end <= sizes + BORDER)).all():
        senseless = (start + end > sizes + BORDER).any(axis=1)
        if senseless.mean() <= SENSELESS_SHARE:
            return True
        kind, example = "boxes-as-corners", sized[senseless.argmax()]
    else:
        return True
    size = images.sizes[example.image]
    report.add(kind, note=f"such as {example.bbox} in an image of {_times(size)}")
    return False


def _times(size: Sequence[float]) -> str:
    return f"{size[0]:g} x {size[1]:g}"
