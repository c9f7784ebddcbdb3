"""Checks of an annotation file by itself: lists, ids, references, boxes."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from .read import as_id, is_file_name, number, require_lists, shown
from .report import Report

MAX_ASPECT = 50.0
# OpenCV reads no image of more pixels a side.
MOST_PIXELS = 2**20
# Beyond this a coordinate is a mistake.
LARGEST = 1e7
# COCO's own boxes reach a little out of their images, by rounding.
BORDER = 1.0
# So many boxes must all look like another format before they are taken for it; and such a share of
# them must make no sense as (x, y, width, height) before they are taken for corners.
ENOUGH_BOXES = 8
SENSELESS_SHARE = 1 / 3


def check_annotations(
    coco: Any,
    source: str = "annotations",
    classes: Sequence[str] | None = None,
    evaluated: bool = True,
    max_aspect: float = MAX_ASPECT,
) -> Report:
    """Check parsed COCO annotations, of whatever content.

    Args:
        coco: What a JSON file held.
        source: The file's name, for messages.
        classes: ``metainfo.classes`` of a config; None: all categories are trained.
        evaluated: Whether the file may be used for evaluation, which asks for more.
        max_aspect: Longest side over shortest from which on a box or an image is extreme.

    Raises:
        NotCocoError: if one of COCO's three lists is missing.
    """
    require_lists(coco, source)
    report = Report(source, coco)
    images = _check_images(report, max_aspect)
    categories = _check_categories(report, classes)
    _check_boxes(report, images, categories, evaluated, max_aspect)
    return report


@dataclass
class _Images:
    """The list of images by position; of several with one id, mmdet uses the last."""

    sizes: dict[int, tuple[float, float]] = field(default_factory=dict)  # (width, height), pixels
    position_of: dict[Any, int] = field(default_factory=dict)
    by_file: dict[str, list[int]] = field(default_factory=dict)


class _Category(NamedTuple):
    position: int
    trained: bool


class _Box(NamedTuple):
    position: int
    image: int  # position; -1 if there is none
    category: _Category | None
    bbox: Sequence[float]  # x, y, width, height in pixels; empty if not usable
    area: float
    crowd: bool
    ignored: bool


def _entries(report: Report, subject: str, kind: str) -> Iterator[tuple[int, dict]]:
    """Positions and values of the entries that are JSON objects; reports the others."""
    for position, entry in enumerate(report.coco[subject]):
        if isinstance(entry, dict):
            yield position, entry
        else:
            report.add(kind, subject, position, f"it is {shown(entry, 40)}")


def _have_letters(report: Report, subject: str) -> bool:
    """Whether all ids of a list are strings."""
    entries = [entry for entry in report.coco[subject] if isinstance(entry, dict)]
    letters = {type(entry.get("id")) for entry in entries} == {str}
    if letters:
        report.add("ids-in-letters", note=f"those of '{subject}'")
    return letters


def _say(entry: dict, key: str) -> str:
    return f"{key} is {shown(entry[key], 40, repr)}" if key in entry else f"no {key}"


def _check_images(report: Report, max_aspect: float) -> _Images:
    images = _Images()
    if not report.coco["images"]:
        report.add("no-images", note="'images' is an empty list")
    letters = _have_letters(report, "images")
    positions_of: dict[Any, list[int]] = {}
    for position, entry in _entries(report, "images", "image-malformed"):
        image_id, name = as_id(entry.get("id"), letters), entry.get("file_name")
        if image_id is None:
            report.add("image-id", "images", position, _say(entry, "id"))
        else:
            positions_of.setdefault(image_id, []).append(position)
        if is_file_name(name):
            images.by_file.setdefault(os.path.normpath(name), []).append(position)
        else:
            report.add("file-name", "images", position, _say(entry, "file_name"))
        size = number(entry.get("width")), number(entry.get("height"))
        usable = all(0 < side <= MOST_PIXELS for side in size)
        if not usable or any(side % 1 for side in size):
            said = [
                shown(entry[key], 20, repr) if key in entry else "missing"
                for key in ("width", "height")
            ]
            report.add("image-size", "images", position, " x ".join(said))
        if usable:
            images.sizes[position] = size
            if max(size) > max_aspect * min(size):
                report.add("image-aspect", "images", position, _times(size))
    for image_id, positions in positions_of.items():
        images.position_of[image_id] = positions[-1]
        for position in positions if len(positions) > 1 else ():
            report.add("image-id-twice", "images", position)
    return images


def _check_categories(report: Report, classes: Sequence[str] | None) -> dict[Any, _Category]:
    """The usable categories by id; the first one of each id."""
    if not report.coco["categories"]:
        report.add("no-categories", note="'categories' is an empty list")
    letters = _have_letters(report, "categories")
    found: dict[Any, _Category] = {}
    by_key: dict[str, dict[Any, list[int]]] = {"category-id-twice": {}, "category-name-twice": {}}
    for position, entry in _entries(report, "categories", "category-malformed"):
        category_id, name = as_id(entry.get("id"), letters), entry.get("name")
        if category_id is None or type(name) is not str:
            report.add("category-malformed", "categories", position)
            continue
        trained = classes is None or name in classes
        found.setdefault(category_id, _Category(position, trained))
        by_key["category-id-twice"].setdefault(category_id, []).append(position)
        by_key["category-name-twice"].setdefault(name, []).append(position)
        if not trained:
            report.add("category-not-in-classes", "categories", position)
    for kind, positions_of in by_key.items():
        for positions in positions_of.values():
            for position in positions if len(positions) > 1 else ():
                report.add(kind, "categories", position)
    for before, after in pairwise(sorted(i for i in found if isinstance(i, int))):
        if after - before > 1:
            last = f" to {after - 1}" if after - before > 2 else ""
            report.add("category-gap", note=f"{before + 1}{last}")
    if classes is not None:
        names = list(by_key["category-name-twice"])
        for name in classes:
            if name not in names:
                report.add("class-without-category", note=missing_class(name, names))
        # mmdet numbers the classes in the order in which the file has them
        in_file = [name for name in names if name in classes]
        if in_file != [name for name in dict.fromkeys(classes) if name in names]:
            order = ", ".join(shown(name, 20) for name in in_file[:8])
            more = ", ..." if len(in_file) > 8 else ""
            report.add("class-order", note=f"the file's order, to set there, is {order}{more}")
    return found


def similar_name(name: Any, names: Sequence[str]) -> str | None:
    """The one of some names that may be meant by another, if there is one."""
    folded = {other.casefold(): other for other in names}
    close = difflib.get_close_matches(str(name).casefold(), folded, 1)
    return folded[close[0]] if close else None


def missing_class(name: Any, names: Sequence[str]) -> str:
    """A class that a data set does not have, and what it may be there."""
    similar = similar_name(name, names)
    known = [similar] if similar else names[:8]
    text = f"{shown(name, 40, repr)}; the file has {', '.join(shown(n, 40, repr) for n in known)}"
    if isinstance(name, str):
        return text
    return (
        f"{text}, and --cfg-options makes a {type(name).__name__} of that: set metainfo.classes in "
        "a config file"
    )


def _check_boxes(
    report: Report,
    images: _Images,
    categories: dict[Any, _Category],
    evaluated: bool,
    max_aspect: float,
) -> None:
    """Check the list of annotations: values, then boxes against their images."""
    rows: list[_Box] = []
    ids: set[Any] = set()
    contents: dict[int, dict[tuple, None]] = {}  # of images
    for position, entry in _entries(report, "annotations", "annotation-malformed"):

        def add(kind: str, note: str = "", position: int = position) -> None:
            report.add(kind, "annotations", position, note)

        own_id = as_id(entry.get("id"))
        if own_id is None:
            add("annotation-id", _say(entry, "id"))
        elif own_id in ids:
            add("annotation-id-twice")
        ids.add(own_id)
        if own_id == 0 and evaluated:
            add("annotation-id-zero")
        image = images.position_of.get(as_id(entry.get("image_id"), letters=True), -1)
        if image < 0:
            add("unknown-image", _say(entry, "image_id"))
        category = categories.get(as_id(entry.get("category_id"), letters=True))
        if category is None:
            add("unknown-category", _say(entry, "category_id"))
        crowd = entry.get("iscrowd", 0)
        if not (isinstance(crowd, (int, float)) and crowd in (0, 1)):
            add("iscrowd", _say(entry, "iscrowd"))
        elif "iscrowd" not in entry and evaluated:
            add("iscrowd-missing")
        if entry.get("ignore"):
            add("marked-ignore")
        bbox = _four_numbers(entry.get("bbox"))
        if not bbox:
            add("bbox-malformed", _say(entry, "bbox"))
        elif not all(abs(value) <= LARGEST for value in bbox):
            add("bbox-not-finite", _say(entry, "bbox"))
            bbox = []
        if image >= 0:
            content = (category, *bbox)
            boxes = contents.setdefault(image, {})
            if bbox and category and content in boxes:
                add("bbox-twice")
            boxes[content] = None
        area, ignored = number(entry.get("area")), bool(entry.get("ignore"))
        rows.append(_Box(position, image, category, bbox, area, bool(crowd), ignored))

    in_pixels = _check_format(report, images, rows)
    crowds_in: dict[int, set[bool]] = {}  # images with usable boxes, and whether these are crowds
    used: set[_Category] = set()
    for row in rows:
        whole = bool(row.bbox)
        if row.bbox and in_pixels:
            whole = _check_geometry(report, row, images.sizes.get(row.image), max_aspect)
        known = abs(row.area) <= LARGEST**2
        # a box of no extent need not have a positive area
        if row.bbox and not (known and (row.area > 0 or not whole)):
            say = _say(report.coco["annotations"][row.position], "area")
            report.add("area", "annotations", row.position, say)
        if row.image < 0:
            continue  # mmdet never comes to it
        usable = whole and min(row.bbox[2:]) >= 1 and known and row.area > 0
        if usable and not row.ignored and row.category and row.category.trained:
            crowds_in.setdefault(row.image, set()).add(row.crowd)
            used.add(row.category)
        else:
            report.skipped += 1
    if in_pixels:
        for position, image_entry in enumerate(report.coco["images"]):
            if isinstance(image_entry, dict) and False not in crowds_in.get(position, ()):
                kind = "image-crowds-only" if position in crowds_in else "image-empty"
                report.add(kind, "images", position)
        for category in categories.values():
            if category.trained and category not in used:
                report.add("category-unused", "categories", category.position)
    for first, *others in images.by_file.values():
        same = all(contents.get(n, {}).keys() == contents.get(first, {}).keys() for n in others)
        for n in others:
            note = f"same file as {report.name('images', first)}"
            report.add("file-twice" if same else "file-shared", "images", n, note)


def _four_numbers(value: Any) -> list[float]:
    if type(value) is list and len(value) == 4 and all(type(v) in (int, float) for v in value):
        return [number(v) for v in value]
    return []


def _check_geometry(
    report: Report, row: _Box, size: tuple[float, float] | None, max_aspect: float
) -> bool:
    """Check a box in an image of (width, height); True if it has an area there."""
    x, y, w, h = row.bbox
    width, height = size or (math.inf, math.inf)
    kinds = []
    whole = False
    if w < 0 or h < 0:
        kinds = ["bbox-negative"]
    elif w == 0 or h == 0:
        kinds = ["bbox-zero"]
    elif min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0):
        kinds = ["bbox-outside"]
    else:
        whole = True
        if min(w, h) < 1:
            kinds = ["bbox-subpixel"]
        elif max(w, h) > max_aspect * min(w, h):
            kinds = ["bbox-aspect"]
        if min(x, y) < -BORDER or x + w > width + BORDER or y + h > height + BORDER:
            kinds.append("bbox-partly-outside")
    for kind in kinds:
        inside = f" in {_times(size)}" if size else ""
        note = f"bbox {[round(value, 2) for value in row.bbox]}{inside}"
        report.add(kind, "annotations", row.position, note)
    return whole


def _check_format(report: Report, images: _Images, rows: Sequence[_Box]) -> bool:
    """Report boxes that are in another format throughout; False if so."""
    sized = [
        (row.bbox, images.sizes[row.image])
        for row in rows
        if row.bbox and row.image in images.sizes
    ]
    if len(sized) < ENOUGH_BOXES:
        return True
    if all(
        min(x, y, w, h) >= 0 and max(x + w, y + h) <= 1 + 1e-3 for (x, y, w, h), _ in sized
    ) and any(max(bbox[2:]) > 0 for bbox, _ in sized):
        kind, example = "boxes-as-fractions", sized[0]
    elif all(
        -BORDER <= x < a <= width + BORDER and -BORDER <= y < b <= height + BORDER
        for (x, y, a, b), (width, height) in sized
    ):
        senseless = [
            one
            for one in sized
            if any(one[0][n] + one[0][n + 2] > one[1][n] + BORDER for n in (0, 1))
        ]
        if len(senseless) <= SENSELESS_SHARE * len(sized):
            return True
        kind, example = "boxes-as-corners", senseless[0]
    else:
        return True
    report.add(kind, note=f"such as {example[0]} in an image of {_times(example[1])}")
    return False


def _times(size: Sequence[float]) -> str:
    return f"{size[0]:g} x {size[1]:g}"
