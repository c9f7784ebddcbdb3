"""YOLO's format: a text file per image, beside it or in a parallel folder; a line per object.

``supervision`` reads it too, but assumes fractions instead of pixels and draws a full-size mask for
each polygon; ``globox`` stops at blank lines and ignores EXIF orientation.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ...utils.cli import UsageError
from .found import ROLES, Box, Found, image_size, is_image, role_of

_NAME_FILES = (
    "classes.txt",
    "obj.names",
    "labels.txt",
    "_darknet.labels",
    "predefined_classes.txt",
)
_NO_LABELS = {"train.txt", "val.txt", "valid.txt", "test.txt", "readme.txt", *_NAME_FILES}


def read(root: Path, files: list[Path], only: Path | None) -> Found | None:
    """Read a data.yaml and its folders, or images with text files; None if there is neither."""
    described = _description(files, only)
    present = set(files)
    labels = {path: label for path in files if is_image(path) for label in [_label(path, present)]}
    if not any(labels.values()):
        return None
    # targets of links to labelled images are not additional images
    behind = {path.resolve() for path, label in labels.items() if label and path.is_symlink()}
    labels = {path: label for path, label in labels.items() if label or path not in behind}
    images = _by_role(root, labels, *described) if described else {}
    if not images:
        for path in labels:
            images.setdefault(role_of(path, root) or "train", []).append(path)
    notes: list[str] = []
    names = _class_names(files, described)
    above = None if names else _description(sorted(root.parent.glob("*.y*ml")), None)
    if above:  # a single split of a dataset
        names = _class_names(files, above)
        notes.append(f"Class names are from {above[0]}; init {root.parent} reads all its splits.")
    lines = {
        path: list(_lines(label)) if (label := labels.get(path)) else []
        for paths in images.values()
        for path in paths
    }
    corners = _are_corners(lines, notes)
    highest = max((int(line[0]) for found in lines.values() for line in found), default=-1)
    if not names:
        names = [str(number) for number in range(highest + 1)]
        notes.append("No file has class names, so classes are called by their numbers.")
    elif highest >= len(names):
        raise UsageError(
            f"A label has class {highest}, but there are {len(names)} class names: "
            f"{', '.join(names)}."
        )
    unlabelled = sum(labels.get(path) is None for path in lines)
    if unlabelled:
        notes.append(f"Images without a label file, used as images without objects: {unlabelled}.")
    sets = {
        role: [(x, [_box(line, names, corners) for line in lines[x]]) for x in sorted(set(paths))]
        for role, paths in images.items()
    }
    return Found.of("YOLO", root, sets, notes, names, shares=corners is None)


def _description(files: list[Path], only: Path | None) -> tuple[Path, dict[str, Any]] | None:
    for path in [only] if only else files:
        if path.suffix.lower() in (".yaml", ".yml"):
            try:
                content = yaml.safe_load(path.read_text(encoding="utf-8"))
            except (yaml.YAMLError, UnicodeDecodeError):
                continue
            if isinstance(content, dict) and "names" in content:
                return path, content
    return None


def _label(image: Path, present: set[Path]) -> Path | None:
    """Label file of an image: beside it, or in the folder labels instead of images."""
    parts = list(image.with_suffix(".txt").parts)
    places = [Path(*parts)]
    for index, part in enumerate(parts[:-1]):
        if part.lower() in ("images", "imgs", "jpegimages"):
            places.append(Path(*parts[:index], "labels", *parts[index + 1 :]))
    places.append(image.parent / "labels" / parts[-1])
    return next((p for p in reversed(places) if p in present and p.name not in _NO_LABELS), None)


def _by_role(
    root: Path, labels: dict[Path, Path | None], path: Path, content: dict[str, Any]
) -> dict[str, list[Path]]:
    """Images of the entries train, val and test of a data.yaml."""
    bases = [path.parent / str(content.get("path") or ""), path.parent, root]
    roles: dict[str, list[Path]] = {}
    for role in ROLES:
        entries = content.get(role) or (content.get("valid") if role == "val" else None) or []
        found = []
        for entry in [entries] if isinstance(entries, str) else entries:
            # Roboflow's "../train/images" means a folder next to data.yaml
            forms = (entry, entry.removeprefix("../"))
            places = [_plain(base / form) for base in bases for form in forms]
            place = next((place for place in places if place.exists()), None)
            if place is None:
                raise UsageError(f"{path} names {entry!r} for {role}, but {places[0]} is missing.")
            if place.is_dir():
                found += [image for image in labels if image.is_relative_to(place)]
                continue
            for line in filter(None, place.read_text().splitlines()):
                x = Path(line.strip())
                near = map(_plain, (place.parent / x, root / x, root / "images" / x.name))
                found += [p for p in near if p in labels][:1]
        if found:
            roles[role] = found
    return roles if "train" in roles else {}


def _plain(path: Path) -> Path:
    """Remove "..", to match listed files; links are not resolved."""
    return Path(os.path.abspath(path))


def _class_names(files: list[Path], described: tuple[Path, dict[str, Any]] | None) -> list[str]:
    if described:
        names = described[1]["names"]
        if isinstance(names, dict):
            ids = {int(key): str(name) for key, name in names.items()}
            return [ids.get(number, str(number)) for number in range(max(ids, default=-1) + 1)]
        return [str(name) for name in names]
    for path in files:
        if path.name in _NAME_FILES:
            return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    return []


def _lines(path: Path) -> Iterator[list[float]]:
    """Class and numbers of each line; blank lines are skipped."""
    for number, text in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        words = text.replace(",", " ").split()
        if not words:
            continue
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = []
        if len(values) < 5 or not all(map(math.isfinite, values)) or values[0] % 1 or values[0] < 0:
            raise UsageError(f"{path}, line {number} is not a YOLO label: {text[:80]!r}.")
        yield values


def _are_corners(lines: dict[Path, list[list[float]]], notes: list[str]) -> bool | None:
    """Whether boxes in pixels are corners, not centre and size; None for fractions."""
    if not any(max(line[1:5]) > 2 for found in lines.values() for line in found):
        return None
    sizes = {path: image_size(path) for path, found in lines.items() if found}
    boxes = [(*line[1:5], *size) for path, size in sizes.items() for line in lines[path]]
    centred = all(w <= W + 1 and h <= H + 1 and x - w / 2 > -2 and y - h / 2 > -2
                  and x + w / 2 < W + 2 and y + h / 2 < H + 2
                  for x, y, w, h, W, H in boxes)  # fmt: skip
    corners = all(c > a and d > b and c < W + 2 and d < H + 2 for a, b, c, d, W, H in boxes)
    if centred == corners:
        raise UsageError(
            "The labels hold pixels instead of fractions, and may be 'x_center y_center width "
            "height' or 'x_min y_min x_max y_max'. YOLO's format has fractions from 0 to 1."
        )
    form = "x_min y_min x_max y_max" if corners else "x_center y_center width height"
    notes.append(f"The labels hold pixels instead of fractions: {form}.")
    return corners


def _box(line: list[float], names: list[str], corners: bool | None) -> Box:
    """Box of five numbers (six with a score), or the box around a polygon or rotated box."""
    label, values = names[int(line[0])], line[1:]
    if len(values) >= 6:
        xs, ys = values[: len(values) // 2 * 2 : 2], values[1::2]
        return label, min(xs), min(ys), max(xs), max(ys), False
    x, y, w, h = values[:4]
    if corners:
        return label, x, y, w, h, False
    return label, x - w / 2, y - h / 2, x + w / 2, y + h / 2, False
