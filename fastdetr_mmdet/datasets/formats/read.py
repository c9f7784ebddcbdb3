"""Detect the format of a dataset and read it."""

from __future__ import annotations

import os
from pathlib import Path

from ...utils.cli import UsageError
from . import coco, labelme, table, voc, yolo
from .found import Found, files_below, is_image

# Readers of single files.
_OF_FILES = {".json": (coco, labelme), ".csv": (table,), ".yaml": (yolo,), ".yml": (yolo,)}


def read_dataset(data: str | Path) -> Found:
    """Read a dataset in COCO, YOLO, Pascal VOC or labelme format, or a table.

    Args:
        data: Folder, COCO annotation file, YOLO data.yaml or .csv. It is not changed.

    Raises:
        UsageError: if the format is unknown or the data cannot be read.
    """
    data = Path(os.path.abspath(data))
    if not data.exists():
        raise UsageError(f"There is no folder or file {data}.")
    if data.is_file() and data.suffix.lower() not in _OF_FILES:
        raise UsageError(
            f"{data} is neither a folder, nor a .json, .yaml or .csv file; unpack archives."
        )
    root = data.parent if data.is_file() else data
    files = files_below(root)
    if data.suffix.lower() in (".json", ".csv") and not any(map(is_image, files)):
        root = root.parent  # the file is in an annotation folder
        files = files_below(root)
    only = data if data.is_file() else None
    for reader in (coco, yolo, voc, labelme, table):
        if reader is table:
            _refuse_own_forms([only] if only else files)
        if only and reader not in _OF_FILES[only.suffix.lower()]:
            continue  # it would read other files than the given one
        found = reader.read(root, files, only)
        if found is not None:
            return found
    if only:
        raise UsageError(
            f"{only} holds no labels in a known format: a .json is COCO's or labelme's, a .yaml "
            f"YOLO's, a .csv a table of boxes.{_remedy(root)}"
        )
    kinds = sorted({path.suffix.lower() or path.name for path in files if not is_image(path)})
    images = sum(map(is_image, files))
    raise UsageError(
        f"{data} holds no labels in a known format: no COCO .json, no YOLO .txt beside images, no "
        f"Pascal VOC .xml, no labelme .json and no table of boxes (.csv). {root} holds "
        f"{images} images and files of types {', '.join(kinds[:8]) or 'none'}.{_remedy(root)}"
    )


# Key that only a tool's own files have -> its name, and the export to use instead.
_OWN_FORMS = {
    "file_attributes": (
        "VGG Image Annotator's own format",
        "Export Annotations (COCO format) in its menu Annotation",
    ),
    "original_width": ("Label Studio's own format (JSON or JSON-MIN)", "Export, COCO or YOLO"),
}


def _refuse_own_forms(files: list[Path]) -> None:
    """Raise UsageError for a tool's own format if the tool can export a known one."""
    for path in files:
        if path.suffix.lower() in (".json", ".csv"):
            with path.open(encoding="utf-8", errors="replace") as file:
                start = file.read(100_000)
            for word, (form, export) in _OWN_FORMS.items():
                if word in start:
                    raise UsageError(f"{path} is in {form}, which is not read. Choose {export}.")


def _remedy(root: Path) -> str:
    """Advice on unknown files and on links, which are not followed."""
    links = [path for path in root.rglob("*") if path.is_symlink() and path.is_dir()]
    if links:
        return (
            f" {links[0]} is a link to a folder, which is not followed. Give a folder that holds "
            f"the labels and {links[0].resolve()}, or replace the link by the files."
        )
    return " CVAT, Label Studio, labelme and Roboflow export these formats."
