"""Checks of the list of annotations, in arrays: 860 000 boxes take a few seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .columns import LARGEST, MISSING, boxes, column, ids, numbers, references, shown, types
from .entries import Categories, Images, check_shared_files, objects, shared_files
from .report import Report

# COCO's own boxes reach a little out of their images, by rounding.
BORDER = 1.0
# So many boxes must all look like another format before they are taken for it; and such a share of
# them must make no sense as (x, y, width, height) before they are taken for corners.
ENOUGH_BOXES = 8
SENSELESS_SHARE = 1 / 3


@dataclass
class _Annotations:
    """The annotations that are JSON objects, one row each, and where their problems go."""

    report: Report
    positions: np.ndarray
    entries: list[dict]

    def add(self, kind: str, wrong: np.ndarray, note: Callable[[int], str] | None = None) -> None:
        """Report the rows where `wrong` is True; `note` says what is wrong with one."""
        rows = np.flatnonzero(wrong).tolist()
        notes = [note(row) for row in rows] if note else []
        self.report.add(kind, "annotations", self.positions[rows], notes)

    def say(self, key: str) -> Callable[[int], str]:
        """A note that shows the value of a key."""

        def note(row: int) -> str:
            entry = self.entries[row]
            return f"{key} is {shown(repr(entry[key]), 40)}" if key in entry else f"no {key}"

        return note


def check_boxes(
    report: Report, images: Images, categories: Categories, evaluated: bool, max_aspect: float
) -> None:
    """Check the list of annotations.

    Args:
        report: Takes what is found.
        images: What the file says about images.
        categories: What it says about categories; those that a config leaves out are not trained.
        evaluated: Whether the file may be used for evaluation.
        max_aspect: Longest side over shortest from which on a box is absurd.
    """
    table = _Annotations(report, *objects(report, "annotations", "annotation-malformed"))
    _check_ids(table, evaluated)
    image = _look_up(table, "unknown-image", "image_id", images.row_of)
    numbered = {category: n for n, category in enumerate(categories.names)}
    category = _look_up(table, "unknown-category", "category_id", numbered)
    crowd = _check_crowds(table, evaluated)
    bbox, finite = _check_numbers(table)

    placed = finite & (image >= 0)
    sizes = np.full((len(bbox), 2), np.nan)
    sizes[image >= 0] = images.sizes[image[image >= 0]]
    sized = placed & np.isfinite(sizes).all(axis=1)
    in_pixels = _check_format(report, bbox[sized], sizes[sized])
    whole = finite
    if in_pixels:
        whole = _check_geometry(table, bbox, sizes, finite, max_aspect)
    wide = (bbox[:, 2:] >= 1).all(axis=1)
    area = _check_area(table, finite, whole)
    ignored = np.array([bool(entry.get("ignore")) for entry in table.entries], bool)
    table.add("marked-ignore", ignored)

    trained = np.array([*categories.trained, False])[category]  # -1 is the last
    used = placed & whole & wide & area & trained & ~ignored
    # as mmdet counts: boxes of images that are not there never come up
    report.skipped = int(((image >= 0) & ~used).sum())
    repeated = placed & (category >= 0)
    _check_repetitions(table, image, category, bbox, repeated)
    if in_pixels:
        _check_use(report, images, categories, image[used], category[used], crowd[used])
    shared = shared_files(images)
    if shared:
        boxes_of = _boxes_of(shared, image, category, bbox)
        check_shared_files(report, images, shared, boxes_of)


def _check_ids(table: _Annotations, evaluated: bool) -> None:
    found = ids(column(table.entries, "id"))
    if types(found) <= {int} and len(set(found)) == len(found) and 0 not in found:
        return
    table.add("annotation-id", np.array([i is None for i in found], bool), table.say("id"))
    seen: set = set()
    twice = []
    for annotation_id in found:
        twice.append(annotation_id is not None and annotation_id in seen)
        seen.add(annotation_id)
    table.add("annotation-id-twice", np.array(twice, bool))
    if evaluated:
        table.add("annotation-id-zero", np.array([i == 0 for i in found], bool))


def _look_up(table: _Annotations, kind: str, key: str, row_of: dict) -> np.ndarray:
    """Rows of the entries that annotations refer to; -1 where there is none."""
    found = references(column(table.entries, key))
    rows = np.array([row_of.get(reference, -1) for reference in found], np.int64)
    table.add(kind, rows < 0, table.say(key))
    return rows


def _check_crowds(table: _Annotations, evaluated: bool) -> np.ndarray:
    """Which annotations mmdet takes for crowds."""
    values = column(table.entries, "iscrowd")
    if types(values) <= {int} and set(values) <= {0, 1}:
        return np.array(values, bool)
    missing = np.array([value is MISSING for value in values], bool)
    good = np.array([is_flag(value) for value in values], bool)
    table.add("iscrowd", ~good & ~missing, table.say("iscrowd"))
    if evaluated:
        table.add("iscrowd-missing", missing)
    return np.array([bool(value) for value in values], bool) & ~missing


def is_flag(value: Any) -> bool:
    """Whether mmdet and pycocotools both understand this `iscrowd`."""
    return isinstance(value, (int, float)) and value in (0, 1)


def _check_numbers(table: _Annotations) -> tuple[np.ndarray, np.ndarray]:
    """Boxes, (annotations, 4), and which of them are four usable numbers."""
    bbox, good = boxes(column(table.entries, "bbox"))
    table.add("bbox-malformed", ~good, table.say("bbox"))
    finite = good & (np.abs(bbox) <= LARGEST).all(axis=1)
    table.add("bbox-not-finite", good & ~finite, table.say("bbox"))
    return np.where(finite[:, None], bbox, np.nan), finite


def _check_format(report: Report, bbox: np.ndarray, sizes: np.ndarray) -> bool:
    """Report boxes that are in another format throughout; False if so."""
    if len(bbox) < ENOUGH_BOXES:
        return True
    first, second = bbox[:, :2], bbox[:, 2:]
    example = f"such as {bbox[0].tolist()} in an image of {_size(sizes[0])}"
    if (bbox >= 0).all() and (first + second <= 1 + 1e-3).all() and (second > 0).any():
        report.add("boxes-as-fractions", notes=[example])
        return False
    senseless = (first + second > sizes + BORDER).any(axis=1)
    if (
        senseless.mean() > SENSELESS_SHARE
        and ((first < second) & (first >= -BORDER) & (second <= sizes + BORDER)).all()
    ):
        example = f"such as {bbox[senseless][0].tolist()} in an image of "
        report.add("boxes-as-corners", notes=[example + _size(sizes[senseless][0])])
        return False
    return True


def _check_geometry(
    table: _Annotations, bbox: np.ndarray, sizes: np.ndarray, finite: np.ndarray, max_aspect: float
) -> np.ndarray:
    """Which boxes have an area within their image; NaN sizes are images without a known one."""
    first, extent = bbox[:, :2], bbox[:, 2:]
    with np.errstate(invalid="ignore"):
        end = first + extent
        negative = finite & (extent < 0).any(axis=1)
        zero = finite & ~negative & (extent == 0).any(axis=1)
        inside = np.minimum(end, sizes) - np.maximum(first, 0)
        outside = finite & ~negative & ~zero & (inside <= 0).any(axis=1)
        whole = finite & ~negative & ~zero & ~outside
        subpixel = whole & (extent < 1).any(axis=1)
        partly = whole & ((first < -BORDER) | (end > sizes + BORDER)).any(axis=1)
        thin = whole & ~subpixel & (extent.max(axis=1) > max_aspect * extent.min(axis=1))

    def place(row: int) -> str:
        image = "" if np.isnan(sizes[row]).any() else f" in {_size(sizes[row])}"
        return f"bbox {[round(value, 2) for value in bbox[row].tolist()]}{image}"

    table.add("bbox-negative", negative, place)
    table.add("bbox-outside", outside, place)
    table.add("bbox-zero", zero, place)
    table.add("bbox-subpixel", subpixel, place)
    table.add("bbox-partly-outside", partly, place)
    table.add("bbox-aspect", thin, place)
    return whole


def _check_area(table: _Annotations, finite: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Which areas let mmdet keep the box; a box of no extent need not have a positive one."""
    area = numbers(column(table.entries, "area"))
    known = np.abs(area) <= LARGEST**2
    positive = known & (area > 0)
    table.add("area", finite & np.where(whole, ~positive, ~known), table.say("area"))
    return positive


def _check_repetitions(
    table: _Annotations, image: np.ndarray, category: np.ndarray, bbox: np.ndarray, ask: np.ndarray
) -> None:
    rows = np.flatnonzero(ask)
    keys = np.column_stack([image[rows], category[rows], bbox[rows]])
    order = np.lexsort(keys.T)
    same = (np.diff(keys[order], axis=0) == 0).all(axis=1)
    # lexsort is stable: the first of the list stays the first
    again = np.zeros(len(image), bool)
    again[rows[order[1:][same]]] = True
    table.add("bbox-twice", again)


def _check_use(
    report: Report,
    images: Images,
    categories: Categories,
    image: np.ndarray,
    category: np.ndarray,
    crowd: np.ndarray,
) -> None:
    """Report images and categories that are left without boxes that can be used."""
    objects_in = np.bincount(image[~crowd], minlength=len(images.positions))
    crowds_in = np.bincount(image[crowd], minlength=len(images.positions))
    report.add("image-empty", "images", images.positions[(objects_in == 0) & (crowds_in == 0)])
    report.add("image-crowds-only", "images", images.positions[(objects_in == 0) & (crowds_in > 0)])
    seen = np.bincount(category, minlength=len(categories.names))
    positions = np.array(list(categories.position_of.values()), int)
    unused = (seen == 0) & np.array(categories.trained, bool)
    report.add("category-unused", "categories", positions[unused])


def _boxes_of(
    groups: list[list[int]], image: np.ndarray, category: np.ndarray, bbox: np.ndarray
) -> dict[int, frozenset]:
    """What can be compared of the boxes of some images."""
    found: dict[int, set] = {row: set() for rows in groups for row in rows}
    for n in np.flatnonzero(np.isin(image, list(found))).tolist():
        found[int(image[n])].add((int(category[n]), str(bbox[n].tolist())))  # NaN equals NaN so
    return {row: frozenset(boxes) for row, boxes in found.items()}


def _size(size: np.ndarray) -> str:
    return f"{size[0]:g} x {size[1]:g}"
