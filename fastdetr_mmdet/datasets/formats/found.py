"""Splits found in a folder, as COCO's lists."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

ROLES = ("train", "val", "test")
_ROLE = re.compile(r"(?<![a-z])(train|val|test|dev)(?:ing|id|idation)?(?:val)?(?![a-z])")
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jpe", ".ppm"}
_ORIENTATION, _QUARTER_TURNS = 0x0112, (5, 6, 7, 8)  # EXIF: the camera was held upright


@dataclass
class Split:
    """One part of a data set.

    Args:
        coco: Its content, in COCO's lists.
        images: The folder that file names are relative to.
        file: Its annotation file; None if it must be written first.
    """

    coco: dict[str, Any]
    images: Path
    file: Path | None = None


@dataclass
class Found:
    """Content of a folder.

    Args:
        form: "COCO", "YOLO", "Pascal VOC", "labelme" or "CSV".
        root: The folder that holds all of it.
        splits: By role; one whose role nothing tells is "train".
        notes: What was decided while reading, in sentences.
    """

    form: str
    root: Path
    splits: dict[str, Split]
    notes: list[str] = field(default_factory=list)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of all categories of the training set, in the order of their ids."""
        categories = self.splits["train"].coco["categories"]
        return tuple(str(c["name"]) for c in sorted(categories, key=lambda c: c["id"]))


@dataclass
class Labelled:
    """One image and its boxes, (class, x, y, w, h, whether to ignore) in pixels as OpenCV loads it.

    Args:
        path: The image.
        size: Width and height.
        boxes: Clipped to the image when they are written.
    """

    path: Path
    size: tuple[int, int]
    boxes: list[tuple[str, float, float, float, float, bool]]


def role_of(path: Path, root: Path) -> str | None:
    """Train, val or test, as the names of a file and its folders say; None if they do not."""
    relative = path.relative_to(root) if path.is_relative_to(root) else path
    for part in reversed(relative.parts):
        words = _ROLE.findall(part.lower())
        if words:
            return "val" if words[-1] == "dev" else words[-1]
    return None


def files_below(folder: Path) -> list[Path]:
    """All files, sorted, without hidden ones."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, name) for name in sorted(names) if not name.startswith(".")]
    return found


def is_image(path: Path) -> bool:
    """Whether a file's name is that of an image."""
    return path.suffix.lower() in _SUFFIXES


def image_size(path: Path) -> tuple[int, int]:
    """Width and height as OpenCV, and so a data set of mmdet's, loads an image; from its header."""
    with Image.open(path) as image:
        turned = image.getexif().get(_ORIENTATION) in _QUARTER_TURNS
        return image.size[::-1] if turned else image.size


def to_coco(labelled: Iterable[Labelled], classes: Sequence[str], root: Path) -> dict[str, Any]:
    """COCO's three lists; file names are relative to the root."""
    ids = {name: number for number, name in enumerate(classes, 1)}
    coco: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }
    for number, one in enumerate(labelled, 1):
        width, height = one.size
        name = os.path.relpath(one.path, root)
        coco["images"].append(dict(id=number, file_name=name, width=width, height=height))
        for label, x, y, w, h, ignore in one.boxes:
            right, bottom = min(x + w, width), min(y + h, height)
            x, y = max(x, 0.0), max(y, 0.0)
            w, h = right - x, bottom - y
            coco["annotations"].append(
                dict(
                    id=len(coco["annotations"]) + 1,
                    image_id=number,
                    category_id=ids[label],
                    bbox=[round(value, 3) for value in (x, y, w, h)],
                    area=round(w * h, 3),
                    iscrowd=int(ignore),
                )
            )
    return coco
