"""A copy of annotations without what is wrong in them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .check import check_annotations
from .columns import boxes, column, ids, numbers, references
from .entries import MOST_PIXELS, check_images, shared_files
from .report import Report

# Kinds whose entries are left out of a cleaned copy, unless a step below mends them first.
_LEFT_OUT = {
    "images": (
        "image-malformed image-id image-id-twice image-size file-name path-outside path-symlink "
        "file-missing file-unreadable file-truncated file-size file-turned"
    ).split(),
    "categories": "category-malformed category-id-twice".split(),
    "annotations": (
        "annotation-malformed unknown-image unknown-category bbox-malformed bbox-not-finite "
        "bbox-negative bbox-outside bbox-zero bbox-subpixel bbox-twice iscrowd"
    ).split(),
}
_FLAGS = {"0": 0, "1": 1, "false": 0, "true": 1}
_NEW_IDS = ("annotation-id", "annotation-id-twice", "annotation-id-zero")


class CannotCleanError(ValueError):
    """Nothing would be left; the message says why."""


def clean(
    report: Report,
    classes: Sequence[str] | None = None,
    sizes: Mapping[int, tuple[int, int]] | None = None,
) -> tuple[dict[str, Any], Counter[str]]:
    """Leave out or mend what a report names, until nothing is left to do.

    What has a value of its own is mended (``area``, ids, ``iscrowd``, sizes of images whose file is
    there), the rest is left out. The entries of the source are not changed.

    Args:
        report: Of the check, with or without that of the files.
        classes: As in the check.
        sizes: (width, height) of images by position, as `check_files` returns them.

    Returns:
        The annotations, and how many entries were left out or mended for each kind of problem.

    Raises:
        CannotCleanError: if no image or no category would be left.
    """
    counts: Counter[str] = Counter()
    complete = False  # whether the report asked for everything
    while True:
        for key in ("images", "categories"):
            if not report.coco[key]:
                raise CannotCleanError(f"{report.source}: nothing to write, no {key} are left.")
        step = _Step(report, counts, sizes or {})
        coco = step.run(classes)
        if complete and not step.changed:
            return coco, counts
        sizes = None  # positions are others now, and sizes mended
        report, complete = check_annotations(coco, report.source, classes), True


class _Step:
    """One round of cleaning: what a round uncovers is the business of the next."""

    def __init__(
        self, report: Report, counts: Counter[str], sizes: Mapping[int, tuple[int, int]]
    ) -> None:
        self.report, self.counts, self.sizes = report, counts, sizes
        self.changed = False
        self.lists: dict[str, list] = {
            key: list(report.coco[key]) for key in ("images", "categories", "annotations")
        }
        self.left_out: dict[str, set[int]] = {key: set() for key in self.lists}
        self.mended: dict[str, set[int]] = {"image-size": set(), "iscrowd": set()}

    def run(self, classes: Sequence[str] | None) -> dict[str, Any]:
        """Return cleaned annotations; `changed` says whether they are others than before."""
        self._mend_sizes()
        self._mend_crowds()
        for key, kinds in _LEFT_OUT.items():
            for kind in kinds:
                self._leave_out(kind, key, self._positions(kind))
        self._mend_boxes()
        if not self.left_out["images"] and not self.left_out["categories"]:
            self._merge_categories()
            self._merge_images()
            self._convert_boxes()
            self._order_categories(classes or ())
        else:
            self._leave_out_with("images", "image_id", "box of an image that was left out")
            self._leave_out_with("categories", "category_id", "box of a category left out")
        kept = {
            key: [entry for n, entry in enumerate(entries) if n not in self.left_out[key]]
            for key, entries in self.lists.items()
        }
        return {**self.report.coco, **kept}

    def _positions(self, kind: str) -> list[int]:
        finding = self.report.findings.get(kind)
        return finding.positions if finding else []

    def _count(self, kind: str, number: int) -> None:
        if number:
            self.counts[kind] += number
            self.changed = True

    def _leave_out(self, kind: str, key: str, positions: Sequence[int]) -> None:
        if kind in ("image-id-twice", "category-id-twice"):
            positions = self._all_but_equal_ones(key, positions)
        new = set(positions) - self.left_out[key] - self.mended.get(kind, set())
        self.left_out[key] |= new
        self._count(kind, len(new))

    def _all_but_equal_ones(self, key: str, positions: Sequence[int]) -> list[int]:
        """Entries of one id are of no use, except the first of several that are the same."""
        by_id: dict[Any, list[int]] = {}
        for n in positions:
            by_id.setdefault(self.lists[key][n]["id"], []).append(n)
        first = self.lists[key]
        return [
            n
            for group in by_id.values()
            for n in group[int(all(_same(first[group[0]], first[m]) for m in group)) :]
        ]

    def _leave_out_with(self, key: str, reference: str, kind: str) -> None:
        """Leave out the boxes of images or categories that are left out."""
        entries = [entry for entry in self.lists[key] if isinstance(entry, dict)]
        every = set(references(column(entries, "id")))
        kept = [
            entry
            for n, entry in enumerate(self.lists[key])
            if isinstance(entry, dict) and n not in self.left_out[key]
        ]
        gone = every - set(references(column(kept, "id")))
        positions = [
            n
            for n, entry in enumerate(self.lists["annotations"])
            if isinstance(entry, dict) and references([entry.get(reference)])[0] in gone
        ]
        self._leave_out(kind, "annotations", positions)

    # ----------------------------------------------------------------------------------------------
    # What can be mended

    def _mend_sizes(self) -> None:
        for n in self._positions("image-size"):
            entry = self.lists["images"][n]
            size = self.sizes.get(n)
            if size is None:
                width, height = numbers([entry.get("width"), entry.get("height")])
                if not (0.5 < width <= MOST_PIXELS and 0.5 < height <= MOST_PIXELS):
                    continue
                size = round(float(width)), round(float(height))
            self.lists["images"][n] = {**entry, "width": size[0], "height": size[1]}
            self.mended["image-size"].add(n)
        self._count("image-size", len(self.mended["image-size"]))

    def _mend_crowds(self) -> None:
        entries = self.lists["annotations"]
        for n in self._positions("iscrowd"):
            value = entries[n]["iscrowd"]
            flag = _FLAGS.get(value.strip().lower()) if isinstance(value, str) else None
            if value is None or flag is not None:
                entries[n] = {**entries[n], "iscrowd": flag or 0}
                self.mended["iscrowd"].add(n)
        self._count("iscrowd", len(self.mended["iscrowd"]))

    def _mend_boxes(self) -> None:
        """Give annotations that stay what they lack."""
        entries = self.lists["annotations"]
        staying = {
            kind: [n for n in self._positions(kind) if n not in self.left_out["annotations"]]
            for kind in ("iscrowd-missing", "area", *_NEW_IDS)
        }
        for n in staying["iscrowd-missing"]:
            entries[n] = {**entries[n], "iscrowd": 0}
        for n in staying["area"]:
            (box,), _ = boxes([entries[n]["bbox"]])
            entries[n] = {**entries[n], "area": max(float(box[2] * box[3]), 0.0)}
        wrong = sorted({n for kind in _NEW_IDS for n in staying[kind]})
        if wrong:
            taken = set(ids([e.get("id") if isinstance(e, dict) else None for e in entries]))
            free = (number for number in itertools.count(1) if number not in taken)
            for n in wrong:
                entries[n] = {**entries[n], "id": next(free)}
        for kind, positions in staying.items():
            self._count(kind, len(positions))

    def _merge_categories(self) -> None:
        """Boxes of a category that has another's name go to the first of that name."""
        first: dict[str, Any] = {}
        moved: dict[Any, Any] = {}
        for n in self._positions("category-name-twice"):
            entry = self.lists["categories"][n]
            if entry["name"] in first:
                moved[entry["id"]] = first[entry["name"]]
                self._leave_out("category-name-twice", "categories", [n])
            else:
                first[entry["name"]] = entry["id"]
        self._move("category_id", moved)

    def _merge_images(self) -> None:
        """Boxes of an image that has another's file go to the first of that file."""
        if not self._positions("file-shared"):
            return
        shared = set(self._positions("file-shared"))
        images = check_images(Report(self.report.source, self.report.coco), max_aspect=1e9)
        moved: dict[Any, Any] = {}
        for rows in shared_files(images):
            positions = images.positions[rows].tolist()
            if shared & set(positions):
                to = self.lists["images"][positions[0]]["id"]
                moved |= {self.lists["images"][n]["id"]: to for n in positions[1:]}
                self._leave_out("file-shared", "images", positions[1:])
        self._move("image_id", moved)

    def _move(self, key: str, moved: dict) -> None:
        if moved:
            entries = self.lists["annotations"]
            for n, entry in enumerate(entries):
                reference = references([entry.get(key)])[0] if isinstance(entry, dict) else None
                if reference in moved:
                    entries[n] = {**entry, key: moved[reference]}

    def _convert_boxes(self) -> None:
        fractions = "boxes-as-fractions" in self.report.findings
        if not fractions and "boxes-as-corners" not in self.report.findings:
            return
        size_of = {e["id"]: (e["width"], e["height"]) for e in self.lists["images"]}
        done = 0
        for n, entry in enumerate(self.lists["annotations"]):
            if n in self.left_out["annotations"]:
                continue
            x, y, a, b = entry["bbox"]
            w, h = size_of[entry["image_id"]]
            box = [x * w, y * h, a * w, b * h] if fractions else [x, y, a - x, b - y]
            change: dict[str, Any] = {"bbox": box}
            if fractions:
                change["area"] = box[2] * box[3]
            self.lists["annotations"][n] = {**entry, **change}
            done += 1
        self._count("boxes-as-fractions" if fractions else "boxes-as-corners", done)

    def _order_categories(self, classes: Sequence[str]) -> None:
        if "class-order" in self.report.findings:
            place = {name: n for n, name in reversed(list(enumerate(classes)))}
            entries = self.lists["categories"]
            order = sorted(
                range(len(entries)), key=lambda n: place.get(entries[n]["name"], len(place))
            )
            self.lists["categories"] = [entries[n] for n in order]
            self.left_out["categories"] = {
                new for new, old in enumerate(order) if old in self.left_out["categories"]
            }
            self._count("class-order", 1)


def _same(first: Any, second: Any) -> bool:
    try:
        return bool(first == second)
    except RecursionError:
        return False
