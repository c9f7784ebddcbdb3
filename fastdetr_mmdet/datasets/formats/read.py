"""Detect the format of a data set and read it."""

from __future__ import annotations

import os
from pathlib import Path

from ...utils.cli import UsageError
from . import coco, labelme, table, voc, yolo
from .found import Found, files_below, is_image


def read_dataset(data: str | Path) -> Found:
    """Read a data set in COCO's, YOLO's, Pascal VOC's or labelme's form, or a table.

    Args:
        data: Its folder, a COCO annotation file, a YOLO data.yaml or a .csv. Nothing of it is
            changed.

    Raises:
        UsageError: if nothing known is there, or it cannot be read; in a sentence.
    """
    data = Path(os.path.abspath(data))
    if not data.exists():
        raise UsageError(f"There is no folder or file {data}.")
    if data.is_file() and data.suffix.lower() not in (".json", ".yaml", ".yml", ".csv"):
        raise UsageError(
            f"{data} is neither a folder, nor a .json, .yaml or .csv file; unpack archives."
        )
    root = data.parent if data.is_file() else data
    files = files_below(root)
    if data.suffix.lower() in (".json", ".csv") and not any(map(is_image, files)):
        root = root.parent  # the file is in a folder of annotations
        files = files_below(root)
    only = data if data.is_file() else None
    for reader in (coco, yolo, voc, labelme, table):
        if reader is table:
            _refuse_own_forms([only] if only else files)
        found = reader.read(root, files, only)
        if found is not None:
            return found
    kinds = sorted({path.suffix.lower() or path.name for path in files if not is_image(path)})
    images = sum(map(is_image, files))
    raise UsageError(
        f"{data} holds no labels that are known here: no COCO .json, no YOLO .txt beside images, "
        "no Pascal VOC .xml, no labelme .json and no table of boxes (.csv). It holds "
        f"{images} images and files of the kinds {', '.join(kinds[:8]) or 'none'}.{_remedy(root)}"
    )


# What stands in all of a tool's own files and in no other, and what to export instead
_OWN_FORMS = {
    "file_attributes": (
        "VGG Image Annotator's own form",
        "Export Annotations (COCO format) in its menu Annotation",
    ),
    "original_width": ("Label Studio's own form (JSON or JSON-MIN)", "Export, COCO or YOLO"),
}


def _refuse_own_forms(files: list[Path]) -> None:
    """Raise UsageError if a file is of a tool that can export it in a form that is read here."""
    for path in files:
        if path.suffix.lower() in (".json", ".csv"):
            with path.open(encoding="utf-8", errors="replace") as file:
                start = file.read(100_000)
            for word, (form, export) in _OWN_FORMS.items():
                if word in start:
                    raise UsageError(f"{path} is in {form}, which is not read. Choose {export}.")


def _remedy(root: Path) -> str:
    """Advice on files that are not read and links that are not followed."""
    links = [path for path in root.rglob("*") if path.is_symlink() and path.is_dir()]
    if links:
        return (
            f" {links[0]} is a link to a folder, which is not followed: move the folder {root} "
            "into one that holds both, or put the files in place of the link."
        )
    return " CVAT, Label Studio, labelme and Roboflow export these forms."
