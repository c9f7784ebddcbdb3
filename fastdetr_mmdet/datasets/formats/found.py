"""Splits of a folder as COCO's lists."""

from __future__ import annotations

import json
import operator
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
# Class, left, top, right, bottom, and whether to ignore it as COCO's crowds.
Box = tuple[str, float, float, float, float, bool]
Labelled = tuple[Path, list[Box]]  # an image and its boxes
_ORIENTATION, _QUARTER_TURNS = 0x0112, (5, 6, 7, 8)  # EXIF: the camera was held upright


@dataclass
class Split:
    """One part of a dataset."""

    coco: dict[str, Any]  # COCO's lists
    images: Path  # the folder that file names are relative to
    file: Path | None = None  # the annotation file; None if it is not written yet


@dataclass
class Found:
    """Content of a folder."""

    form: str  # "COCO", "YOLO", "Pascal VOC", "labelme" or "CSV"
    root: Path  # the common folder
    splits: dict[str, Split]  # by role; "train" if the role is unknown
    notes: list[str] = field(default_factory=list)  # sentences on decisions of the reader

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
        shares: bool = False,
    ) -> Found:
        """Make a dataset from images by role; without "train", the first role becomes it.

        Boxes are clipped to their images. With `shares` they are fractions of the image, otherwise
        pixels as loaded by OpenCV.
        """
        if "train" not in sets:
            sets["train"] = sets.pop(min(sets))
        if names is None:
            every = [box for labelled in sets.values() for _, boxes in labelled for box in boxes]
            names = sorted({box[0] for box in every})
        splits = {
            role: Split(_to_coco(labelled, names, root, shares), root)
            for role, labelled in sets.items()
        }
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


def json_objects(files: Iterable[Path], types: Mapping[str, type]) -> dict[Path, dict[str, Any]]:
    """Content of the JSON files that hold an object with values of these types."""
    found = {}
    for path in files:
        if path.suffix.lower() == ".json":
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
            except (ValueError, RecursionError):
                continue
            if isinstance(content, dict) and all(
                isinstance(content.get(key), kind) for key, kind in types.items()
            ):
                found[path] = content
    return found


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
            found[path] = max(alike, key=lambda x: sum(map(operator.eq, x.parts, path.parts)))
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


def image_size(path: Path) -> tuple[int, int]:
    """Width and height from an image's header, as OpenCV and so mmdet loads it."""
    with Image.open(path) as image:
        turned = image.getexif().get(_ORIENTATION) in _QUARTER_TURNS
        return image.size[::-1] if turned else image.size


def _to_coco(
    labelled: Iterable[Labelled], classes: Sequence[str], root: Path, shares: bool
) -> dict[str, Any]:
    """COCO's three lists; file names are relative to the root."""
    ids = {name: number for number, name in enumerate(classes, 1)}
    images: list[dict] = []
    annotations: list[dict] = []
    for number, (path, boxes) in enumerate(labelled, 1):
        width, height = image_size(path)
        name = os.path.relpath(path, root)
        images.append(dict(id=number, file_name=name, width=width, height=height))
        scale_x, scale_y = (width, height) if shares else (1, 1)
        for label, left, top, right, bottom, ignore in boxes:
            x, y = max(left * scale_x, 0.0), max(top * scale_y, 0.0)
            w, h = min(right * scale_x, width) - x, min(bottom * scale_y, height) - y
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=ids[label],
                    bbox=[round(value, 3) for value in (x, y, w, h)],
                    area=round(w * h, 3),
                    iscrowd=int(ignore),
                )
            )
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    return dict(images=images, annotations=annotations, categories=categories)
