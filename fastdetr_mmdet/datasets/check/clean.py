"""Copy annotations without their errors."""

from __future__ import annotations

import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...utils.cli import UsageError
from .annotations import MOST_PIXELS, check_annotations
from .read import LISTS, as_id, number
from .report import Report

_FLAGS = {"0": 0, "1": 1, "false": 0, "true": 1, "none": 0}


class CannotCleanError(UsageError):
    """The cleaned copy would be empty."""


def clean(
    report: Report,
    classes: Sequence[str] | None = None,
    sizes: Mapping[int, tuple[int, int]] | None = None,
) -> tuple[dict[str, Any], Counter[str]]:
    """Remove or fix the problems of a report, as in ``KINDS``, until none is left.

    The entries of the source are not changed.

    Args:
        report: Report of the check, with or without files.
        classes: As in the check.
        sizes: (width, height) of images by position, from `check_files`.

    Returns:
        The annotations, and the number of removed or fixed entries per kind of problem.

    Raises:
        CannotCleanError: if no image or no category would be left.
    """
    coco = dict(report.coco)
    for key in LISTS:
        coco[key] = [dict(entry) if isinstance(entry, dict) else entry for entry in coco[key]]
    counts: Counter[str] = Counter()
    for n in report.positions("image-size"):
        if sizes and n in sizes:
            coco["images"][n].update(zip(("width", "height"), sizes[n], strict=True))
            counts["image-size"] += 1
    wrong: set[int] = set()  # problems of files are not found again below
    for finding in report.ordered():
        name, cleaned = finding.kind.name, finding.kind.cleaned
        if name.startswith(("file-m", "file-t", "file-u", "file-size", "path-", "image-too")):
            new = set(finding.positions) - wrong if cleaned.endswith("removed") else set()
            counts[name] += len(new)
            wrong |= new
    _remove(coco, "images", wrong)

    while True:
        report = check_annotations(coco, report.source, classes)
        for finding in report.ordered():
            kind = finding.kind.name
            done = kind.startswith("boxes-as") and kind in counts
            if not finding.kind.cleaned.startswith("kept") and not done:
                break
        else:
            return coco, +counts
        if finding.kind.cleaned == "refused":
            raise CannotCleanError(f"{report.source}: nothing to write: {finding.kind.what}.")
        subject = finding.kind.subject
        if kind in ("category-name-twice", "file-shared"):
            counts[kind] += _merge(coco, subject, finding.positions)
        elif kind.startswith("boxes-as"):
            counts[kind] += _convert(coco, kind == "boxes-as-fractions")
        elif kind == "class-order":
            place = {name: n for n, name in enumerate(classes or ())}
            coco["categories"].sort(key=lambda entry: place.get(entry["name"], len(place)))
            counts[kind] += 1
        else:
            taken = set(map(_id, coco["annotations"]))
            free = (n for n in itertools.count(1) if n not in taken)
            same: dict[Any, list[Any]] = defaultdict(list)  # entries by id
            for entry in coco[subject]:
                same[_id(entry)].append(entry)
            entries, positions = coco[subject], finding.positions
            fixed = {n for n in positions if _fix(kind, entries[n], same, free)}
            _remove(coco, subject, set(positions) - fixed)
            counts[kind] += len(positions)


def _id(entry: Any, key: str = "id") -> int | str | None:
    return as_id(entry.get(key), letters=True) if isinstance(entry, dict) else None


def _remove(coco: dict, subject: str, positions: set[int]) -> None:
    """Remove entries, and the boxes of images or categories."""
    kept = [entry for n, entry in enumerate(coco[subject]) if n not in positions]
    if subject != "annotations":
        gone = set(map(_id, coco[subject])) - set(map(_id, kept)) - {None}
        key = "image_id" if subject == "images" else "category_id"
        coco["annotations"] = [e for e in coco["annotations"] if _id(e, key) not in gone]
    coco[subject] = kept


def _fix(kind: str, entry: Any, same: Mapping[Any, list[Any]], free: Iterator[int]) -> bool:
    """Fix an entry and return success; otherwise it is removed."""
    if kind in ("image-id-twice", "category-id-twice"):  # the first of equal entries stays
        first, *others = same[_id(entry)]
        return entry is first and all(other == entry for other in others)
    if kind == "image-size":
        sides = {key: number(entry.get(key)) for key in ("width", "height")}
        if not all(0.5 < side <= MOST_PIXELS for side in sides.values()):
            return False
        entry.update({key: round(side) for key, side in sides.items()})
    elif kind in ("iscrowd", "iscrowd-missing"):
        entry["iscrowd"] = _FLAGS.get(str(entry.get("iscrowd")).strip().lower())
        return entry["iscrowd"] is not None
    elif kind == "area":
        entry["area"] = max(float(entry["bbox"][2]) * float(entry["bbox"][3]), 0.0)
    elif kind in ("annotation-id", "annotation-id-twice", "annotation-id-zero"):
        entry["id"] = next(free)
    else:
        return False
    return True


def _merge(coco: dict, subject: str, positions: Sequence[int]) -> int:
    """Move boxes to the first of images with the same file, or categories with the same name."""
    if subject == "images":
        keys = [os.path.normpath(image["file_name"]) for image in coco["images"]]
    else:
        keys = [category["name"] for category in coco["categories"]]
    reference = "image_id" if subject == "images" else "category_id"
    shared = {keys[n] for n in positions}
    first = {key: entry["id"] for key, entry in reversed([*zip(keys, coco[subject], strict=True)])}
    moved = {
        _id(entry): first[key]
        for key, entry in zip(keys, coco[subject], strict=True)
        if key in shared and first[key] != entry["id"]
    }
    for entry in coco["annotations"]:
        if _id(entry, reference) in moved:
            entry[reference] = moved[_id(entry, reference)]
    _remove(coco, subject, {n for n, entry in enumerate(coco[subject]) if _id(entry) in moved})
    return len(moved)


def _convert(coco: dict, fractions: bool) -> int:
    sizes = {_id(image): (image["width"], image["height"]) for image in coco["images"]}
    for entry in coco["annotations"]:
        x, y, a, b = entry["bbox"]
        width, height = sizes[_id(entry, "image_id")]
        if fractions:
            entry["bbox"] = [x * width, y * height, a * width, b * height]
            entry["area"] = entry["bbox"][2] * entry["bbox"][3]
        else:
            entry["bbox"] = [x, y, a - x, b - y]
    return len(coco["annotations"])
