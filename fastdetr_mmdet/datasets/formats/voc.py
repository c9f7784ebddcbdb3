"""Pascal VOC's form: an XML file for each image.

``supervision`` and ``globox`` read it too: the former decodes every image, takes every file for
counted from 1 (a box at the border from 0 then starts outside the image), and loses ``difficult``;
the latter takes every file for counted from 0 and fails without ``size``.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from ...utils.cli import UsageError
from .found import ROLES, Found, Labelled, Split, image_size, is_image, role_of, to_coco


def read(root: Path, files: list[Path], only: Path | None) -> Found | None:
    """VOCdevkit's or any folders with XML files and images; None if there are none."""
    annotations = {path: tree for path in files if path.suffix.lower() == ".xml"
                   if (tree := _parse(path)) is not None}  # fmt: skip
    if not annotations:
        return None
    images = _images(files, annotations)
    lost = [path for path in annotations if path not in images]
    if len(lost) == len(annotations):
        raise UsageError(f"No image belongs to {lost[0]} or the other XML files in {root}.")
    notes = []
    if lost:
        notes.append(f"XML files without an image, left out: {len(lost)}, such as {lost[0].name}.")
    by_stem = _image_sets(files)
    roles = {
        path: by_stem.get(path.stem) if by_stem else role_of(path, root) or "train"
        for path in annotations
    }
    sets: dict[str, list[Path]] = {}
    for path in annotations:
        role = roles[path]
        if role and path in images:
            sets.setdefault(role, []).append(path)
    if "train" not in sets:
        sets["train"] = sets.pop(min(sets))
    objects = {path: [*annotations[path].iter("object")] for path in images}
    corners = {path: [_corners(path, item) for item in objects[path]] for path in images}
    lowest = min((min(c[:2]) for found in corners.values() for c in found), default=0)
    first = 1 if lowest >= 1 else 0
    if first:
        notes.append("Pixels are counted from 1, as VOC does; a box ends with its last pixel.")
    names = sorted({_name(path, item) for path in images for item in objects[path]})
    splits = {}
    for role, paths in sets.items():
        labelled = [
            Labelled(
                images[path],
                image_size(images[path]),
                [
                    (
                        _name(path, item),
                        left - first,
                        top - first,
                        right - left + first,
                        bottom - top + first,
                        (item.findtext("difficult") or "0").strip() == "1",
                    )
                    for item, (left, top, right, bottom) in zip(
                        objects[path], corners[path], strict=True
                    )
                ],
            )
            for path in paths
        ]
        splits[role] = Split(to_coco(labelled, names, root), root)
    return Found("Pascal VOC", root, splits, notes)


def _parse(path: Path) -> ET.Element | None:
    try:
        tree = ET.parse(path).getroot()
    except ET.ParseError as error:
        raise UsageError(f"{path} cannot be read as XML: {error}.") from error
    return tree if tree.tag == "annotation" else None


def _images(files: list[Path], annotations: dict[Path, ET.Element]) -> dict[Path, Path]:
    """The image of each XML file: of its own name, or of the name that it tells; nearest first."""
    by_name: dict[str, list[Path]] = {}
    for path in filter(is_image, files):
        for name in {path.name.lower(), path.stem.lower()}:
            by_name.setdefault(name, []).append(path)
    found = {}
    for path, tree in annotations.items():
        told = Path((tree.findtext("filename") or "").strip().replace("\\", "/"))
        for name in (told.name, told.stem, path.stem):
            candidates = by_name.get(name.lower(), [])
            if candidates:
                found[path] = max(candidates, key=lambda image: _shared(image, path))
                break
    return found


def _shared(first: Path, second: Path) -> int:
    """How many folders two files have in common."""
    return sum(a == b for a, b in zip(first.parts, second.parts, strict=False))


def _image_sets(files: list[Path]) -> dict[str, str]:
    """The role of each name in ImageSets/Main; a name in train.txt and trainval.txt is train's."""
    roles: dict[str, str] = {}
    for role in (*ROLES, "trainval"):
        for path in files:
            if path.name == f"{role}.txt" and path.parent.name == "Main":
                for line in path.read_text().split("\n"):
                    if line.strip():
                        roles.setdefault(line.split()[0], "train" if role == "trainval" else role)
    return roles


def _name(path: Path, item: ET.Element) -> str:
    name = (item.findtext("name") or "").strip()
    if not name:
        raise UsageError(f"{path} holds an object without a name.")
    return name


def _corners(path: Path, item: ET.Element) -> list[float]:
    box = item.find("bndbox")
    try:
        values = [float(box.findtext(key)) for key in ("xmin", "ymin", "xmax", "ymax")]  # type: ignore
    except (AttributeError, TypeError, ValueError):
        raise UsageError(f"{path} holds an object without a box of four numbers.") from None
    left, right = sorted(values[::2])
    top, bottom = sorted(values[1::2])
    return [left, top, right, bottom]
