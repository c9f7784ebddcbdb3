"""Files of the shapes dataset: images, annotations and the stamp of a complete dataset."""

import json
import os
from pathlib import Path

import cv2
import numpy as np

from ...utils.cli import UserError
from ...utils.files import write_atomically
from .coco import annotation
from .outlines import CLASSES
from .scene import SPLITS, compose

# Increase with every change of a pixel or an annotation.
GENERATOR_VERSION = 1

_STAMP = "dataset.json"
# Written first and renamed to _STAMP last; identifies unfinished files.
_UNFINISHED = "dataset.unfinished.json"
_PROGRESS_STEP = 256


def _to_json(value: dict) -> bytes:
    return (json.dumps(value, separators=(",", ":")) + "\n").encode()


def _is_written(out: Path, stamp: dict) -> bool:
    """Whether the folder holds the complete dataset; refuse any other content."""
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out} is a file; give a folder for the dataset.")
    if not out.exists() or not any(out.iterdir()):
        return False
    found_in = [name for name in (_STAMP, _UNFINISHED) if (out / name).is_file()]
    if not found_in:
        raise FileExistsError(f"{out} holds other files; choose a new or an empty folder.")
    try:
        found = json.loads((out / found_in[0]).read_text())
    except ValueError:
        found = None
    if found != stamp:
        raise FileExistsError(
            f"{out} holds a different dataset (found {found}, expected {stamp}); remove that "
            "folder or choose another one."
        )
    return found_in[0] == _STAMP and all(  # files may have been removed
        (out / "annotations" / f"{split}.json").is_file()
        and len(list((out / split).glob("*.jpg"))) == stamp[split]
        for split in SPLITS
    )


def _write_split(out: Path, split: str, count: int, seed: int, quiet: bool) -> None:
    folder = out / split
    folder.mkdir(exist_ok=True)
    images: list[dict] = []
    annotations: list[dict] = []
    for number in range(1, count + 1):
        scene = compose(seed, split, number - 1)
        name = f"{number:06d}.jpg"
        _, jpeg = cv2.imencode(".jpg", scene.image, [cv2.IMWRITE_JPEG_QUALITY, scene.jpeg_quality])
        (folder / name).write_bytes(jpeg.tobytes())
        h, w = scene.image.shape[:2]
        images.append({"id": number, "file_name": name, "width": w, "height": h})
        for item, mask in scene.objects:
            annotations.append(annotation(item, mask, len(annotations) + 1, number))
        if not quiet and number % _PROGRESS_STEP == 0:
            print(f"{split}: {number} of {count} images", flush=True)
    about = dict(description="fastdetr_mmdet shapes", version=str(GENERATOR_VERSION))
    coco = {
        "info": {**about, "split": split, "seed": seed},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": label, "name": name, "supercategory": "shape"}
            for label, name in enumerate(CLASSES, 1)
        ],
    }
    write_atomically(out / "annotations" / f"{split}.json", _to_json(coco))


def write_shapes(
    out: str | Path, train: int = 1024, val: int = 128, seed: int = 0, quiet: bool = True
) -> None:
    """Write the dataset, unless it exists.

    Args:
        out: Folder for the dataset: new, empty, or with the same dataset. Other files are never
            changed.
        train: Number of training images, 0 or more.
        val: Number of validation images, 0 or more.
        seed: Seed of all random choices, 0 or more and below 2**32.
        quiet: False prints progress.

    Raises:
        ValueError: if a number is out of its range.
        NotADirectoryError: if `out` is a file.
        FileExistsError: if `out` holds something else.
    """
    if train < 0 or val < 0:
        raise UserError(f"train and val must be 0 or more, got {train} and {val}.")
    if not 0 <= seed < 2**32:
        raise UserError(f"seed must be 0 or more and below 2**32, got {seed}.")
    out = Path(out)
    stamp = {"generator": "fastdetr_mmdet.datasets.shapes", "version": GENERATOR_VERSION}
    stamp |= {"train": train, "val": val, "seed": seed}
    if _is_written(out, stamp):
        return
    (out / "annotations").mkdir(parents=True, exist_ok=True)
    write_atomically(out / _UNFINISHED, _to_json(stamp))
    (out / _STAMP).unlink(missing_ok=True)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # because the rounding of sums depends on the number of threads
    try:
        for split, count in (("train", train), ("val", val)):
            _write_split(out, split, count, seed, quiet)
    finally:
        cv2.setNumThreads(threads)
    os.replace(out / _UNFINISHED, out / _STAMP)


def summary(out: str | Path, split: str) -> str:
    """Describe one split in a few lines: images, boxes, sizes by COCO's limits, classes."""
    coco = json.loads((Path(out) / "annotations" / f"{split}.json").read_text())
    boxes = [a for a in coco["annotations"] if not a["iscrowd"]]
    areas = np.array([a["area"] for a in boxes])
    labels = np.array([a["category_id"] - 1 for a in boxes], int)
    empty = len(coco["images"]) - len({a["image_id"] for a in coco["annotations"]})
    small, large = int((areas < 32**2).sum()), int((areas > 96**2).sum())
    counts = np.bincount(labels, minlength=len(CLASSES))
    per_class = ", ".join(f"{name} {n}" for name, n in zip(CLASSES, counts, strict=True))
    return (
        f"{split}: {len(coco['images'])} images ({empty} empty), {len(boxes)} boxes, "
        f"{len(coco['annotations']) - len(boxes)} crowds\n"
        f"  small {small}, medium {len(boxes) - small - large}, large {large}\n"
        f"  {per_class}"
    )
