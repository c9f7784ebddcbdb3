"""Find out which form a data set has, and read it."""

from __future__ import annotations

import os
from pathlib import Path

from ...utils.cli import UsageError
from . import coco, voc, yolo
from .found import Found, files_below, is_image


def read_dataset(data: str | Path) -> Found:
    """Read a data set in COCO's, YOLO's or Pascal VOC's form; nothing of it is changed.

    Args:
        data: Its folder, a COCO annotation file or a YOLO data.yaml.

    Raises:
        UsageError: if nothing known is there, or it cannot be read; in a sentence.
    """
    data = Path(os.path.abspath(data))
    if not data.exists():
        raise UsageError(f"There is no folder or file {data}.")
    if data.is_file() and data.suffix.lower() not in (".json", ".yaml", ".yml"):
        raise UsageError(f"{data} is neither a folder, nor a .json or .yaml file; unpack archives.")
    root = data.parent if data.is_file() else data
    files = files_below(root)
    if data.suffix.lower() == ".json" and not any(map(is_image, files)):
        root = root.parent  # the file is in a folder of annotations
        files = files_below(root)
    for reader in (coco, yolo, voc):
        found = reader.read(root, files, data if data.is_file() else None)
        if found is not None:
            return found
    kinds = sorted({path.suffix.lower() or path.name for path in files if not is_image(path)})
    images = sum(map(is_image, files))
    raise UsageError(
        f"{data} holds no labels that are known here: no COCO .json, no YOLO .txt beside images "
        f"and no Pascal VOC .xml. It holds {images} images and files of the kinds "
        f"{', '.join(kinds[:8]) or 'none'}. Labelling tools export one of the three."
    )
