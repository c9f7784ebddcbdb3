"""Checks of an annotation file by itself: lists, ids, references, boxes."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

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
    """The list of images by position; `position_of` an id is the last one of it, as in mmdet."""

    sizes: np.ndarray  # (images, 2), (width, height) in pixels; NaN where there is none
    position_of: dict[Any, int] = field(default_factory=dict)
    by_file: dict[str, list[int]] = field(default_factory=dict)


@dataclass
class _Category:
    position: int
    index: int
    trained: bool


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
    images = _Images(np.full((len(report.coco["images"]), 2), np.nan))
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
        found.setdefault(category_id, _Category(position, len(found), trained))
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
        compare_classes(report, classes, list(by_key["category-name-twice"]))
    return found


def compare_classes(report: Report, classes: Sequence[Any], names: Sequence[str]) -> None:
    """Compare a config's classes with the names that a data set has, in its order."""
    for name in classes:
        if name not in names:
            report.add("class-without-category", note=missing_class(name, names))
    # mmdet numbers the classes in the order in which the file has them
    in_file = [name for name in names if name in classes]
    if in_file != [name for name in dict.fromkeys(classes) if name in names]:
        order = ", ".join(shown(name, 20) for name in in_file[:8])
        more = ", ..." if len(in_file) > 8 else ""
        report.add("class-order", note=f"the file's order, to set there, is {order}{more}")


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
    """Check the list of annotations: values one by one, then geometry in arrays."""
    trained = [category.trained for category in categories.values()] + [False]  # -1 is the last
    rows: list[tuple] = []
    boxes: list[Sequence[float]] = []
    seen_ids: set[Any] = set()
    seen_boxes: set[tuple] = set()
    contents: dict[int, set[tuple]] = {}  # of images
    for position, entry in _entries(report, "annotations", "annotation-malformed"):

        def add(kind: str, note: str = "", position: int = position) -> None:
            report.add(kind, "annotations", position, note)

        own_id = as_id(entry.get("id"))
        if own_id is None:
            add("annotation-id", _say(entry, "id"))
        elif own_id in seen_ids:
            add("annotation-id-twice")
        seen_ids.add(own_id)
        if own_id == 0 and evaluated:
            add("annotation-id-zero")
        image = images.position_of.get(as_id(entry.get("image_id"), letters=True), -1)
        if image < 0:
            add("unknown-image", _say(entry, "image_id"))
        found = categories.get(as_id(entry.get("category_id"), letters=True))
        if found is None:
            add("unknown-category", _say(entry, "category_id"))
        category = -1 if found is None else found.index
        crowd = entry.get("iscrowd", 0)
        if not is_flag(crowd):
            add("iscrowd", _say(entry, "iscrowd"))
        elif "iscrowd" not in entry and evaluated:
            add("iscrowd-missing")
        if entry.get("ignore"):
            add("marked-ignore")

        box = four_numbers(entry.get("bbox"))
        if box is None:
            add("bbox-malformed", _say(entry, "bbox"))
        elif not all(abs(value) <= LARGEST for value in box):
            add("bbox-not-finite", _say(entry, "bbox"))
            box = None
        content = (category, *(box or ()))
        contents.setdefault(image, set()).add(content)
        if box and image >= 0 and category >= 0:
            if (image, content) in seen_boxes:
                add("bbox-twice")
            seen_boxes.add((image, content))
        flags = bool(crowd), bool(trained[category] and not entry.get("ignore"))
        rows.append((position, image, category, *flags))
        boxes.append([*(box or [np.nan] * 4), number(entry.get("area"))])

    columns = np.array(rows, np.int64).reshape(-1, 5)
    bbox_area = np.array(boxes, np.float64).reshape(-1, 5)
    _check_geometry(report, images, categories, columns, bbox_area, max_aspect)
    _check_shared_files(report, images, contents)


def four_numbers(value: Any) -> list[float] | None:
    """The numbers of a box, if it is a list of four."""
    if type(value) is list and len(value) == 4 and all(type(v) in (int, float) for v in value):
        return [number(v) for v in value]
    return None


def is_flag(value: Any) -> bool:
    """Whether mmdet and pycocotools both understand this `iscrowd`."""
    return isinstance(value, (int, float)) and value in (0, 1)


def _check_geometry(
    report: Report,
    images: _Images,
    categories: dict[Any, _Category],
    columns: np.ndarray,
    bbox_area: np.ndarray,
    max_aspect: float,
) -> None:
    """Check boxes against their images, and which are left to be learnt.

    Args:
        report: Takes what is found.
        images: Of the file.
        categories: Of the file.
        columns: (annotations, 5), position, image or -1, category or -1, is crowd, is learnt.
        bbox_area: (annotations, 5), x, y, width, height and area; NaN where there is none.
        max_aspect: Longest side over shortest from which on a box is extreme.
    """
    position, image, category, crowd, learnt = columns.T
    bbox, area = bbox_area[:, :4], bbox_area[:, 4]
    finite = np.isfinite(bbox).all(axis=1)
    sizes = np.vstack([images.sizes, [[np.nan, np.nan]]])[image]  # -1 is the last

    def add(kind: str, wrong: np.ndarray, note: Callable[[int], str]) -> None:
        for row in np.flatnonzero(wrong).tolist():
            report.add(kind, "annotations", int(position[row]), note(row))

    def place(row: int) -> str:
        inside = "" if np.isnan(sizes[row]).any() else f" in {_times(sizes[row])}"
        return f"bbox {[round(value, 2) for value in bbox[row].tolist()]}{inside}"

    whole = finite
    sized = finite & np.isfinite(sizes).all(axis=1)
    in_pixels = _check_format(report, bbox[sized], sizes[sized])
    first, extent = bbox[:, :2], bbox[:, 2:]
    with np.errstate(invalid="ignore"):
        if in_pixels:
            end = first + extent
            negative = finite & (extent < 0).any(axis=1)
            zero = finite & ~negative & (extent == 0).any(axis=1)
            inside = np.minimum(end, sizes) - np.maximum(first, 0)
            outside = finite & ~negative & ~zero & (inside <= 0).any(axis=1)
            whole = finite & ~negative & ~zero & ~outside
            subpixel = whole & (extent < 1).any(axis=1)
            beyond = whole & ((first < -BORDER) | (end > sizes + BORDER)).any(axis=1)
            thin = whole & ~subpixel & (extent.max(axis=1) > max_aspect * extent.min(axis=1))
            add("bbox-negative", negative, place)
            add("bbox-outside", outside, place)
            add("bbox-zero", zero, place)
            add("bbox-subpixel", subpixel, place)
            add("bbox-partly-outside", beyond, place)
            add("bbox-aspect", thin, place)
        known = np.abs(area) <= LARGEST**2
        positive = known & (area > 0)
        # a box of no extent need not have a positive area
        wrong = finite & np.where(whole, ~positive, ~known)
        add("area", wrong, lambda row: _say(report.coco["annotations"][position[row]], "area"))
        wide = (extent >= 1).all(axis=1)

    used = (image >= 0) & whole & wide & positive & (learnt > 0)
    # as mmdet counts: boxes of images that are not there never come up
    report.skipped = int(((image >= 0) & ~used).sum())
    if not in_pixels:
        return
    objects, crowds = (set(image[used & (crowd == flag)].tolist()) for flag in (0, 1))
    for number_, entry in enumerate(report.coco["images"]):
        if isinstance(entry, dict) and number_ not in objects:
            kind = "image-crowds-only" if number_ in crowds else "image-empty"
            report.add(kind, "images", number_)
    with_boxes = set(category[used].tolist())
    for one in categories.values():
        if one.trained and one.index not in with_boxes:
            report.add("category-unused", "categories", one.position)


def _check_format(report: Report, bbox: np.ndarray, sizes: np.ndarray) -> bool:
    """Report boxes that are in another format throughout; False if so."""
    if len(bbox) < ENOUGH_BOXES:
        return True
    first, second = bbox[:, :2], bbox[:, 2:]
    senseless = (first + second > sizes + BORDER).any(axis=1)
    if (bbox >= 0).all() and (first + second <= 1 + 1e-3).all() and (second > 0).any():
        kind, example = "boxes-as-fractions", 0
    elif (
        senseless.mean() > SENSELESS_SHARE
        and ((first < second) & (first >= -BORDER) & (second <= sizes + BORDER)).all()
    ):
        kind, example = "boxes-as-corners", int(senseless.argmax())
    else:
        return True
    box = bbox[example].tolist()
    report.add(kind, note=f"such as {box} in an image of {_times(sizes[example])}")
    return False


def _check_shared_files(report: Report, images: _Images, contents: dict[int, set]) -> None:
    """Report images of one and the same file; with equal boxes that is harmless."""
    for first, *others in images.by_file.values():
        same = all(contents.get(other) == contents.get(first) for other in others)
        for other in others:
            note = f"same file as {report.name('images', first)}"
            report.add("file-twice" if same else "file-shared", "images", other, note)


def _times(size: Sequence[float] | np.ndarray) -> str:
    return f"{size[0]:g} x {size[1]:g}"
