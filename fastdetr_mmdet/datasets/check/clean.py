"""A copy of annotations without what is wrong in them."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ...utils.cli import UsageError
from .annotations import MOST_PIXELS, check_annotations
from .read import LISTS, as_id, number
from .report import Report

_FLAGS = {"0": 0, "1": 1, "false": 0, "true": 1}
_Fix = Callable[[dict, str, Sequence[int]], int]
_ONCE = ("boxes-as-fractions", "boxes-as-corners")


class CannotCleanError(UsageError):
    """Nothing would be left."""


def clean(
    report: Report,
    classes: Sequence[str] | None = None,
    sizes: Mapping[int, tuple[int, int]] | None = None,
) -> tuple[dict[str, Any], Counter[str]]:
    """Remove or fix what a report names, as ``KINDS`` says, until nothing is left to do.

    The entries of the source are not changed.

    Args:
        report: Of the check, with or without that of the files.
        classes: As in the check.
        sizes: (width, height) of images by position, as `check_files` returns them.

    Returns:
        The annotations, and how many entries were removed or fixed for each kind of problem.

    Raises:
        CannotCleanError: if no image or no category would be left.
    """
    lists = {
        key: [dict(entry) if isinstance(entry, dict) else entry for entry in report.coco[key]]
        for key in LISTS
    }
    coco = {**report.coco, **lists}
    counts: Counter[str] = Counter()
    fixes: dict[str, _Fix] = {**_FIXES, "class-order": partial(_sort, classes or ())}
    for n in report.positions("image-size"):
        if sizes and n in sizes:
            coco["images"][n].update(zip(("width", "height"), sizes[n], strict=True))
            counts["image-size"] += 1
    # what only the files show is not found again below
    wrong: set[int] = set()
    for finding in report.ordered():
        name = finding.kind.name
        if name.startswith(("file-", "path-", "image-too")) and name not in _FIXES:
            if finding.kind.cleaned.endswith("removed"):
                counts[name] += len(set(finding.positions) - wrong)
                wrong.update(finding.positions)
    _remove(coco, "images", list(wrong))

    while True:
        report = check_annotations(coco, report.source, classes)
        for finding in report.ordered():
            done = finding.kind.name in _ONCE and finding.kind.name in counts
            if not done and not finding.kind.cleaned.startswith("kept"):
                break
        else:
            return coco, counts
        if finding.kind.cleaned == "refused":
            raise CannotCleanError(f"{report.source}: nothing to write: {finding.kind.what}.")
        fix = fixes.get(finding.kind.name, _remove)
        counts[finding.kind.name] += fix(coco, finding.subject, finding.positions)


def _remove(coco: dict, subject: str, positions: Sequence[int]) -> int:
    """Remove entries, and with images or categories their boxes."""
    gone = set(positions)
    kept = [entry for n, entry in enumerate(coco[subject]) if n not in gone]
    if subject != "annotations":
        ids = _ids(coco[subject]) - _ids(kept) - {None}
        key = "image_id" if subject == "images" else "category_id"
        coco["annotations"] = [
            entry for entry in coco["annotations"] if _reference(entry, key) not in ids
        ]
    coco[subject] = kept
    return len(positions)


def _ids(entries: Sequence[Any]) -> set:
    return {_reference(entry, "id") for entry in entries}


def _reference(entry: Any, key: str) -> int | str | None:
    return as_id(entry.get(key), letters=True) if isinstance(entry, dict) else None


def _remove_but_equal(coco: dict, subject: str, positions: Sequence[int]) -> int:
    """Remove entries of one id, except the first of several that are the same."""
    by_id: dict[Any, list[int]] = {}
    for n in positions:
        by_id.setdefault(_reference(coco[subject][n], "id"), []).append(n)
    wrong = []
    for first, *others in by_id.values():
        same = all(coco[subject][n] == coco[subject][first] for n in others)
        wrong += others if same else [first, *others]
    return _remove(coco, subject, wrong)


def _fix_sizes(coco: dict, subject: str, positions: Sequence[int]) -> int:
    wrong = []
    for n in positions:
        size = {key: number(coco["images"][n].get(key)) for key in ("width", "height")}
        if all(0.5 < side <= MOST_PIXELS for side in size.values()):
            coco["images"][n].update({key: round(side) for key, side in size.items()})
        else:
            wrong.append(n)
    _remove(coco, subject, wrong)
    return len(positions)


def _fix_crowds(coco: dict, subject: str, positions: Sequence[int]) -> int:
    wrong = []
    for n in positions:
        value = coco["annotations"][n]["iscrowd"]
        flag = 0 if value is None else _FLAGS.get(str(value).strip().lower())
        if flag is None:
            wrong.append(n)
        coco["annotations"][n]["iscrowd"] = flag
    _remove(coco, subject, wrong)
    return len(positions)


def _fix_missing_crowds(coco: dict, subject: str, positions: Sequence[int]) -> int:
    for n in positions:
        coco["annotations"][n]["iscrowd"] = 0
    return len(positions)


def _fix_areas(coco: dict, subject: str, positions: Sequence[int]) -> int:
    for n in positions:
        _, _, width, height = map(float, coco["annotations"][n]["bbox"])
        coco["annotations"][n]["area"] = max(width * height, 0.0)
    return len(positions)


def _fix_ids(coco: dict, subject: str, positions: Sequence[int]) -> int:
    taken = _ids(coco["annotations"])
    free = (n for n in itertools.count(1) if n not in taken)
    for n in positions:
        coco["annotations"][n]["id"] = next(free)
    return len(positions)


def _merge(coco: dict, subject: str, positions: Sequence[int]) -> int:
    """Move boxes to the first of several images of a file, or of categories of a name."""

    def key(entry: dict) -> str:
        return os.path.normpath(entry["file_name"]) if subject == "images" else entry["name"]

    shared = {key(coco[subject][n]) for n in positions}
    first: dict[str, Any] = {}
    moved, wrong = {}, []
    for n, entry in enumerate(coco[subject]):
        if key(entry) in shared and first.setdefault(key(entry), entry["id"]) != entry["id"]:
            moved[_reference(entry, "id")] = first[key(entry)]
            wrong.append(n)
    reference = "image_id" if subject == "images" else "category_id"
    for entry in coco["annotations"]:
        if _reference(entry, reference) in moved:
            entry[reference] = moved[_reference(entry, reference)]
    _remove(coco, subject, wrong)
    return len(wrong)


def _from_fractions(coco: dict, subject: str, positions: Sequence[int]) -> int:
    sizes = {_reference(image, "id"): (image["width"], image["height"]) for image in coco["images"]}
    for entry in coco["annotations"]:
        x, y, w, h = entry["bbox"]
        width, height = sizes[_reference(entry, "image_id")]
        entry["bbox"] = [x * width, y * height, w * width, h * height]
        entry["area"] = entry["bbox"][2] * entry["bbox"][3]
    return len(coco["annotations"])


def _from_corners(coco: dict, subject: str, positions: Sequence[int]) -> int:
    for entry in coco["annotations"]:
        x1, y1, x2, y2 = entry["bbox"]
        entry["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    return len(coco["annotations"])


def _sort(classes: Sequence[str], coco: dict, subject: str, positions: Sequence[int]) -> int:
    place = {name: n for n, name in enumerate(classes)}
    coco["categories"].sort(key=lambda entry: place.get(entry["name"], len(place)))
    return 1


_FIXES: dict[str, _Fix] = {
    "image-id-twice": _remove_but_equal,
    "category-id-twice": _remove_but_equal,
    "category-name-twice": _merge,
    "file-shared": _merge,
    "image-size": _fix_sizes,
    "boxes-as-fractions": _from_fractions,
    "boxes-as-corners": _from_corners,
    "iscrowd": _fix_crowds,
    "iscrowd-missing": _fix_missing_crowds,
    "area": _fix_areas,
    "annotation-id": _fix_ids,
    "annotation-id-twice": _fix_ids,
    "annotation-id-zero": _fix_ids,
}
