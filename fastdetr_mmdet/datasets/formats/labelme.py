"""labelme's own form: a JSON file for each image.

``globox`` reads it too, but leaves out circles, masks and turned rectangles.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ...utils.cli import UsageError
from .found import Found, Labelled, Split, image_size, is_image, role_of, to_coco


def read(root: Path, files: list[Path], only: Path | None) -> Found | None:
    """Folders of images and JSON files with shapes; None if there are none."""
    contents = {
        path: content
        for path in ([only] if only else files)
        if path.suffix.lower() == ".json" and (content := _load(path)) is not None
    }
    if not contents:
        return None
    images = _images(files, contents)
    lost = [path for path in contents if path not in images]
    if len(lost) == len(contents):
        raise UsageError(
            f"No image belongs to {lost[0]} or the other labelme files in {root}; it names "
            f"{contents[lost[0]]['imagePath']!r}."
        )
    notes = []
    if lost:
        notes.append(f"Labelme files without an image, left out: {len(lost)}, such as {lost[0]}.")
    names: set[str] = set()
    sets: dict[str, list[Labelled]] = {}
    left_out: dict[str, int] = {}
    for path, image in images.items():
        boxes = []
        for shape in contents[path]["shapes"]:
            box = _box(path, shape)
            if box is None:
                kind = str(shape.get("shape_type"))
                left_out[kind] = left_out.get(kind, 0) + 1
                continue
            boxes.append((str(shape["label"]), *box, False))
            names.add(str(shape["label"]))
        found = Labelled(image, image_size(image), boxes)
        sets.setdefault(role_of(path, root) or "train", []).append(found)
    if "train" not in sets:
        sets["train"] = sets.pop(min(sets))
    unlabelled = sum(map(is_image, files)) - len(images)
    if unlabelled:
        notes.append(f"Images without a labelme file, left out: {unlabelled}.")
    notes += [
        f"Shapes of the type {kind}, left out: {number}." for kind, number in left_out.items()
    ]
    splits = {r: Split(to_coco(x, sorted(names), root), root) for r, x in sets.items()}
    return Found("labelme", root, splits, notes)


def _load(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
    known = isinstance(content, dict) and isinstance(content.get("imagePath"), str)
    return content if known and isinstance(content.get("shapes"), list) else None


def _images(files: list[Path], contents: dict[Path, dict]) -> dict[Path, Path]:
    """The image of each file, by the name that it tells or its own; one beside it comes first."""
    by_name: dict[str, list[Path]] = {}
    for image in filter(is_image, files):
        for name in {image.name, image.stem}:
            by_name.setdefault(name, []).append(image)
    found = {}
    for path, content in contents.items():
        told = Path(content["imagePath"].replace("\\", "/")).name
        alike = [x for name in (told, path.stem) for x in by_name.get(name, [])]
        near = [x for x in alike if x.parent == path.parent] or alike
        if near:
            found[path] = near[0]
    return found


def _box(path: Path, shape: Any) -> tuple[float, float, float, float] | None:
    """The box around a shape; None around points and lines."""
    try:
        kind, points = shape.get("shape_type") or "polygon", shape["points"]
        xs, ys = ([float(point[axis]) for point in points] for axis in (0, 1))
        shape["label"]
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        raise UsageError(f"{path} holds a shape without a label or points.") from None
    if kind == "circle" and len(xs) == 2:  # its centre and a point on it
        radius = math.hypot(xs[1] - xs[0], ys[1] - ys[0])
        return xs[0] - radius, ys[0] - radius, 2 * radius, 2 * radius
    if kind not in ("rectangle", "polygon", "rotation", "mask") or len(xs) < 2:
        return None
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
