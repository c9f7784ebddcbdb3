"""Pascal VOC's format: an XML file for each image.

``supervision`` and ``globox`` read it too. The former decodes every image, assumes pixels counted
from 1 in every file (a box at 0 then starts outside the image), and loses ``difficult``; the latter
assumes pixels counted from 0 and fails without ``size``.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from ...utils.cli import UsageError
from .found import ROLES, Box, Found, Labelled, images_of, role_of


def read(root: Path, files: list[Path], only: Path | None) -> Found | None:
    """Read VOCdevkit's or other folders with XML files and images; None if there are none."""
    trees = {path: tree for path in files if path.suffix.lower() == ".xml"
             if (tree := _parse(path)) is not None}  # fmt: skip
    if not trees:
        return None
    notes: list[str] = []
    told = {path: tree.findtext("filename") or "" for path, tree in trees.items()}
    images = images_of("Pascal VOC", told, files, notes)
    objects = {
        path: [_object(path, item) for item in trees[path].iter("object")] for path in images
    }
    starts = [min(box[1:3]) for boxes in objects.values() for box in boxes]
    first = 1 if min(starts, default=0) >= 1 else 0
    if first:
        notes.append(
            "No box starts at 0, so pixels count from 1, as in Pascal VOC: 1 is subtracted from "
            "xmin and ymin."
        )
    listed = _image_sets(files)
    if listed and not any(path.stem in listed for path in images):
        notes.append("ImageSets/Main names none of the images: it is not used.")
        listed = {}
    sets: dict[str, list[Labelled]] = {}
    for path, image in images.items():
        role = listed.get(path.stem) if listed else role_of(path, root) or "train"
        if role:
            boxes = [
                (name, left - first, top - first, right, bottom, difficult)
                for name, left, top, right, bottom, difficult in objects[path]
            ]
            sets.setdefault(role, []).append((image, boxes))
    return Found.of("Pascal VOC", root, sets, notes)


def _parse(path: Path) -> ET.Element | None:
    try:
        tree = ET.parse(path).getroot()
    except ET.ParseError as error:
        raise UsageError(f"{path} cannot be read as XML: {error}.") from error
    return tree if tree.tag == "annotation" else None


def _image_sets(files: list[Path]) -> dict[str, str]:
    """Role of each name in ImageSets/Main; train.txt has precedence over trainval.txt."""
    roles: dict[str, str] = {}
    for role in (*ROLES, "trainval"):
        for path in files:
            if path.name == f"{role}.txt" and path.parent.name == "Main":
                for line in path.read_text().split("\n"):
                    if line.strip():
                        roles.setdefault(line.split()[0], "train" if role == "trainval" else role)
    return roles


def _object(path: Path, item: ET.Element) -> Box:
    """Class name, corners and the flag ``difficult``."""
    name, box = (item.findtext("name") or "").strip(), item.find("bndbox")
    if not name:
        raise UsageError(f"{path} holds an object without a name.")
    try:
        values = [float(box.findtext(key)) for key in ("xmin", "ymin", "xmax", "ymax")]  # type: ignore
    except (AttributeError, TypeError, ValueError):
        raise UsageError(f"{path} holds an object without a box of four numbers.") from None
    left, right = sorted(values[::2])
    top, bottom = sorted(values[1::2])
    difficult = (item.findtext("difficult") or "0").strip() == "1"
    return name, left, top, right, bottom, difficult
