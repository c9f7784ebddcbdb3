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
from .found import Box, Found, Labelled, images_of, json_objects, role_of


def read(root: Path, files: list[Path], only: Path | None) -> Found | None:
    """Read folders of images and JSON files with shapes; None if there are none."""
    contents = json_objects([only] if only else files, {"imagePath": str, "shapes": list})
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
                boxes.append(box)
        sets.setdefault(role_of(path, root) or "train", []).append((image, boxes))
    notes += [f"Shapes of type {kind}, left out: {number}." for kind, number in others.items()]
    return Found.of("labelme", root, sets, notes)


def _box(path: Path, shape: Any) -> Box | None:
    """The box around a shape; None around points and lines."""
    try:
        kind, label = shape.get("shape_type") or "polygon", str(shape["label"])
        xs, ys = ([float(point[axis]) for point in shape["points"]] for axis in (0, 1))
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        raise UsageError(f"{path} holds a shape without a label or points.") from None
    if kind == "circle" and len(xs) == 2:  # centre and a point on the circle
        x, y, radius = xs[0], ys[0], math.hypot(xs[1] - xs[0], ys[1] - ys[0])
        return label, x - radius, y - radius, x + radius, y + radius, False
    if kind not in ("rectangle", "polygon", "rotation", "mask") or len(xs) < 2:
        return None
    return label, min(xs), min(ys), max(xs), max(ys), False
