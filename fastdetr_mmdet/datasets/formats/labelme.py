"""labelme's format: a JSON file for each image.

``supervision`` and ``globox`` read it too, but skip circles and rotated rectangles and do not find
an image that was renamed with its file; the latter also skips polygons.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from ...utils.cli import UsageError
from .found import Found, Labelled, image_size, images_of, json_in, role_of


def read(root: Path, files: list[Path], only: Path | None) -> Found | None:
    """Read folders of images and JSON files with shapes; None if there are none."""
    contents = {
        path: content
        for path in ([only] if only else files)
        if path.suffix.lower() == ".json" and (content := _load(path)) is not None
    }
    if not contents:
        return None
    notes: list[str] = []
    told = {path: content["imagePath"] for path, content in contents.items()}
    sets: dict[str, list[Labelled]] = {}
    others: Counter[str] = Counter()
    for path, image in images_of("labelme", told, files, notes).items():
        boxes = []
        for shape in contents[path]["shapes"]:
            box = _box(path, shape)
            if box is None:
                others[str(shape.get("shape_type"))] += 1
            else:
                boxes.append((str(shape["label"]), *box, False))
        found = Labelled(image, image_size(image), boxes)
        sets.setdefault(role_of(path, root) or "train", []).append(found)
    notes += [f"Shapes of type {kind}, left out: {number}." for kind, number in others.items()]
    return Found.of("labelme", root, sets, notes)


def _load(path: Path) -> dict[str, Any] | None:
    content = json_in(path)
    known = isinstance(content, dict) and isinstance(content.get("imagePath"), str)
    return content if known and isinstance(content.get("shapes"), list) else None


def _box(path: Path, shape: Any) -> tuple[float, float, float, float] | None:
    """The box around a shape; None around points and lines."""
    try:
        kind, points = shape.get("shape_type") or "polygon", shape["points"]
        xs, ys = ([float(point[axis]) for point in points] for axis in (0, 1))
        shape["label"]
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        raise UsageError(f"{path} holds a shape without a label or points.") from None
    if kind == "circle" and len(xs) == 2:  # centre and a point on the circle
        radius = math.hypot(xs[1] - xs[0], ys[1] - ys[0])
        return xs[0] - radius, ys[0] - radius, 2 * radius, 2 * radius
    if kind not in ("rectangle", "polygon", "rotation", "mask") or len(xs) < 2:
        return None
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
