"""Splits of a folder as COCO's lists."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ...utils.cli import UsageError

ROLES = ("train", "val", "test")
_ROLE = re.compile(r"(?<![a-z])(train|val|test|dev)(?:ing|id|idation)?(?:val)?(?![a-z])")
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jpe", ".ppm"}
_ORIENTATION, _QUARTER_TURNS = 0x0112, (5, 6, 7, 8)  # EXIF: the camera was held upright


@dataclass
class Split:
    """One part of a dataset.

    Args:
        coco: COCO's lists.
        images: The folder that file names are relative to.
        file: The annotation file; None if it is not written yet.
    """

    coco: dict[str, Any]
    images: Path
    file: Path | None = None


@dataclass
class Labelled:
    """An image and its boxes, (class, x, y, w, h, ignore) in pixels as loaded by OpenCV.

    Args:
        path: The image.
        size: Width and height.
        boxes: Boxes, clipped to the image when written.
    """

    path: Path
    size: tuple[int, int]
    boxes: list[tuple[str, float, float, float, float, bool]]


@dataclass
class Found:
    """Content of a folder.

    Args:
        form: "COCO", "YOLO", "Pascal VOC", "labelme" or "CSV".
        root: The common folder.
        splits: Splits by role; "train" if the role is unknown.
        notes: Sentences on decisions of the reader.
    """

    form: str
    root: Path
    splits: dict[str, Split]
    notes: list[str] = field(default_factory=list)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the training set's categories, by id."""
        categories = self.splits["train"].coco["categories"]
        return tuple(str(c["name"]) for c in sorted(categories, key=lambda c: c["id"]))

    @classmethod
    def of(
        cls,
        form: str,
        root: Path,
        sets: dict[str, list[Labelled]],
        notes: list[str],
        names: Sequence[str] | None = None,
    ) -> Found:
        """Make a dataset from images by role; without "train", the first role becomes it."""
        if "train" not in sets:
            sets["train"] = sets.pop(min(sets))
        if names is None:
            every = [box for labelled in sets.values() for one in labelled for box in one.boxes]
            names = sorted({box[0] for box in every})
        splits = {r: Split(_to_coco(labelled, names, root), root) for r, labelled in sets.items()}
        return cls(form, root, splits, notes)


def role_of(path: Path, root: Path) -> str | None:
    """Role ("train", "val", "test") by the names of a file and its folders, or None."""
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
    """Whether a file name is an image's."""
    return path.suffix.lower() in _SUFFIXES


def json_in(path: Path) -> Any:
    """Content of a JSON file; None if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None


def left_out(what: str, paths: Sequence[object]) -> list[str]:
    """A note on left-out items, if there are any."""
    return [f"{what}, left out: {len(paths)}, such as {paths[0]}."] if paths else []


def images_of(
    form: str, told: Mapping[Path, str], files: list[Path], notes: list[str]
) -> dict[Path, Path]:
    """Find each label file's image by the name in it or its own name; the nearest of several.

    Raises:
        UsageError: if no file has one.
    """
    by_name: dict[str, list[Path]] = {}
    for image in filter(is_image, files):
        for name in {image.name.lower(), image.stem.lower()}:
            by_name.setdefault(name, []).append(image)
    found = {}
    for path, text in told.items():
        named = Path(text.strip().replace("\\", "/"))
        names = (named.name, named.stem, path.stem)
        alike = [image for name in names for image in by_name.get(name.lower(), ())]
        if alike:
            found[path] = max(alike, key=lambda image: _shared(image, path))
    lost = [path for path in told if path not in found]
    if not found:
        raise UsageError(
            f"No image was found for {lost[0]} and the other {form} files; it names "
            f"{told[lost[0]]!r}."
        )
    notes += left_out(f"{form} files without an image", lost)
    used = {*found.values()}
    notes += left_out(
        f"Images without a {form} file", [x for x in files if is_image(x) and x not in used]
    )
    return found


def _shared(first: Path, second: Path) -> int:
    """Number of folders that two files share."""
    return sum(a == b for a, b in zip(first.parts, second.parts, strict=False))


def image_size(path: Path) -> tuple[int, int]:
    """Width and height from an image's header, as OpenCV and so mmdet loads it."""
    with Image.open(path) as image:
        turned = image.getexif().get(_ORIENTATION) in _QUARTER_TURNS
        return image.size[::-1] if turned else image.size


def _to_coco(labelled: Iterable[Labelled], classes: Sequence[str], root: Path) -> dict[str, Any]:
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
