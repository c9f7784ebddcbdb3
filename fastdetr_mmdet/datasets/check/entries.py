"""Checks of the lists of images and categories: ids, names, sizes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from .columns import MISSING, column, ids, is_file_name, numbers, shown, types
from .report import Report

# OpenCV reads no image of more pixels a side.
MOST_PIXELS = 2**20


@dataclass
class Images:
    """The usable part of the list of images, one row each.

    Args:
        positions: Of the rows in the file's list.
        row_of: Row of an id; the last one of that id, as in mmdet.
        names: File names, None where there is no possible one.
        sizes: (rows, 2), (width, height) in pixels; NaN where there is none.
    """

    positions: np.ndarray
    row_of: dict[int | str, int]
    names: list[str | None]
    sizes: np.ndarray


@dataclass
class Categories:
    """The usable part of the list of categories.

    Args:
        position_of: Position in the file's list by id; the first one of that id.
        names: By id.
        trained: Whether the config's classes name it, in the order of the ids above.
    """

    position_of: dict[int | str, int]
    names: dict[int | str, str]
    trained: list[bool]


def objects(report: Report, subject: str, kind: str) -> tuple[np.ndarray, list[dict]]:
    """Positions and values of the entries of a list that are JSON objects; reports the others."""
    entries = report.coco[subject]
    if types(entries) <= {dict}:
        return np.arange(len(entries)), entries
    good = np.array([isinstance(entry, dict) for entry in entries], bool)
    wrong = np.flatnonzero(~good)
    report.add(kind, subject, wrong, [f"it is {shown(entries[i], 40)}" for i in wrong])
    return np.flatnonzero(good), [entry for entry, ok in zip(entries, good, strict=True) if ok]


def check_images(report: Report, max_aspect: float) -> Images:
    """Check the list of images by itself."""
    positions, entries = objects(report, "images", "image-malformed")
    if not report.coco["images"]:
        report.add("no-images", notes=["'images' is an empty list"])
    values = column(entries, "id")
    found = ids(values, letters=True)
    _report_letters(report, "images", found)
    wrong = np.array([i is None for i in found], bool)
    report.add("image-id", "images", positions[wrong], _notes("id", values, wrong))

    row_of: dict[int | str, int] = {}
    for row, image_id in enumerate(found):
        if image_id is not None:
            row_of[image_id] = row
    if len(row_of) < len(found) - int(wrong.sum()):
        counts = Counter(i for i in found if i is not None)
        twice = [row for row, i in enumerate(found) if i is not None and counts[i] > 1]
        report.add("image-id-twice", "images", positions[twice])

    values = column(entries, "file_name")
    good = np.array([is_file_name(value) for value in values], bool)
    report.add("file-name", "images", positions[~good], _notes("file_name", values, ~good))
    names = [value if ok else None for value, ok in zip(values, good, strict=True)]

    sizes = np.stack([numbers(column(entries, key)) for key in ("width", "height")], axis=1)
    with np.errstate(invalid="ignore"):
        good = ((sizes > 0) & (sizes <= MOST_PIXELS) & (sizes == np.round(sizes))).all(axis=1)
        usable = (sizes > 0) & (sizes <= MOST_PIXELS)
    notes = [
        " x ".join(
            shown(repr(entries[row][key]), 20) if key in entries[row] else "missing"
            for key in ("width", "height")
        )
        for row in np.flatnonzero(~good)
    ]
    report.add("image-size", "images", positions[~good], notes)
    sizes = np.where(usable.all(axis=1, keepdims=True), sizes, np.nan)
    with np.errstate(invalid="ignore"):
        thin = sizes.max(axis=1, initial=0) > max_aspect * sizes.min(axis=1, initial=np.inf)
    report.add("image-aspect", "images", positions[thin], _times(sizes[thin]))
    return Images(positions, row_of, names, sizes)


def check_categories(report: Report, classes: Sequence[str] | None) -> Categories:
    """Check the list of categories by itself and against the classes of a config."""
    positions, entries = objects(report, "categories", "category-malformed")
    if not report.coco["categories"]:
        report.add("no-categories", notes=["'categories' is an empty list"])
    found = ids(column(entries, "id"), letters=True)
    _report_letters(report, "categories", found)
    names = column(entries, "name")
    good = np.array(
        [i is not None and type(n) is str for i, n in zip(found, names, strict=True)], bool
    )
    report.add("category-malformed", "categories", positions[~good])
    rows = np.flatnonzero(good).tolist()

    for kind, values in (("category-id-twice", found), ("category-name-twice", names)):
        counts = Counter(values[row] for row in rows)
        twice = [row for row in rows if counts[values[row]] > 1]
        report.add(kind, "categories", positions[twice])
    whole = sorted({found[row] for row in rows if isinstance(found[row], int)})
    gaps = [
        f"{a + 1} to {b - 1}" if b - a > 2 else f"{a + 1}" for a, b in pairwise(whole) if b - a > 1
    ]
    if gaps:
        report.add("category-gap", notes=gaps)

    position_of: dict[int | str, int] = {}
    name_of: dict[int | str, str] = {}
    for row in rows:
        position_of.setdefault(found[row], int(positions[row]))
        name_of.setdefault(found[row], names[row])
    if classes is not None:
        _compare_classes(report, classes, [names[row] for row in rows], positions[good])
    trained = [classes is None or name in classes for name in name_of.values()]
    return Categories(position_of, name_of, trained)


def _compare_classes(
    report: Report, classes: Sequence[str], names: list[str], positions: np.ndarray
) -> None:
    lacking = [shown(name, 40) for name in classes if name not in names]
    if lacking:
        report.add("class-without-category", notes=lacking)
    unnamed = np.array([name not in classes for name in names], bool)
    report.add("category-not-in-classes", "categories", positions[unnamed])
    # mmdet numbers the classes in the order in which the file has them
    in_file = list(dict.fromkeys(name for name in names if name in classes))
    in_config = [name for name in dict.fromkeys(classes) if name in names]
    if in_file != in_config:
        order = ", ".join(shown(name, 20) for name in in_file[:8])
        more = ", ..." if len(in_file) > 8 else ""
        report.add("class-order", notes=[f"the file's order, to set there, is {order}{more}"])


def check_shared_files(
    report: Report, images: Images, groups: list[list[int]], boxes_of: dict[int, frozenset]
) -> None:
    """Report images of one and the same file.

    Args:
        report: Takes what is found.
        images: The table of images.
        groups: Rows with a file in common, as `shared_files` finds them.
        boxes_of: Comparable boxes of those rows.
    """
    for rows in groups:
        same = len({boxes_of[row] for row in rows}) == 1
        others = rows[1:]
        first = report.name("images", int(images.positions[rows[0]]))
        report.add(
            "file-twice" if same else "file-shared",
            "images",
            images.positions[others],
            [f"same file as {first}"] * len(others),
        )


def shared_files(images: Images) -> list[list[int]]:
    """Rows of the images that have a file in common, if any."""
    names = [name for name in images.names if name is not None]
    plain = not any("//" in name or "./" in name for name in names)
    if plain and len(set(names)) == len(names):
        return []
    by_file: dict[str, list[int]] = {}
    for row, name in enumerate(images.names):
        if name is not None:
            by_file.setdefault(os.path.normpath(name), []).append(row)
    return [rows for rows in by_file.values() if len(rows) > 1]


def _report_letters(report: Report, subject: str, found: list) -> None:
    if types(found) == {str}:
        report.add("ids-in-letters", notes=[f"those of '{subject}'"])


def _notes(key: str, values: list[Any], wrong: np.ndarray) -> list[str]:
    return [
        f"no {key}" if values[row] is MISSING else f"{key} is {shown(repr(values[row]), 40)}"
        for row in np.flatnonzero(wrong)
    ]


def _times(sizes: np.ndarray) -> list[str]:
    return [f"{w:g} x {h:g}" for w, h in sizes]
