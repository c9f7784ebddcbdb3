"""Command line: ``python -m fastdetr_mmdet.export CONFIG CHECKPOINT OUT.onnx``."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import DictAction

from ..checkpoints.loading import load_detector
from ..utils.files import would_overwrite
from .comparison import measure_speed
from .errors import ExportError, check_packages
from .onnx_file import export_onnx


def main(arguments: Sequence[str] | None = None) -> int:
    """Export, compare with PyTorch, and print both.

    Args:
        arguments: Of the command line; default: this process's.

    Returns:
        The exit status: 0; or 2, with the reason on stderr, if the detector cannot be exported, or
        the file disagrees with it, which is then not kept.
    """
    given = _parser().parse_args(arguments)
    try:
        _export(given)
    except (ValueError, OSError) as error:  # ExportError, CheckpointRefusedError, a missing file
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fastdetr_mmdet.export",
        description="Write a detector as an ONNX file of standard operators, and compare what "
        "onnxruntime makes of it with PyTorch. docs/inference.md tells how to use the file.",
    )
    parser.add_argument("config", metavar="CONFIG", help="the detector's config")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="its weights")
    parser.add_argument("out", metavar="OUT.onnx", type=Path, help="the file to write")
    parser.add_argument(
        "--dynamic",
        action="store_true",
        help="leave the number of images, height and width free; else they are fixed",
    )
    parser.add_argument(
        "--image-size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="of the images in pixels; default: what the config's test pipeline makes of them",
    )
    parser.add_argument(
        "--batch-size", type=int, default=1, help="images per batch, unless --dynamic; default 1"
    )
    parser.add_argument(
        "--benchmark", action="store_true", help="also time onnxruntime and PyTorch on this CPU"
    )
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, help="changes of the config: key=value ..."
    )
    return parser


def _export(given: argparse.Namespace) -> None:
    check_packages()  # before anything that takes time
    if given.batch_size < 1:
        raise ExportError(f"--batch-size {given.batch_size} must be at least 1.")
    if would_overwrite([given.out], [given.config, given.checkpoint]):
        raise ExportError(
            f"{given.out} is the config or the checkpoint to export; name another file to write."
        )
    detector = _load(given)
    size = tuple(given.image_size) if given.image_size else None
    found = export_onnx(detector, given.out, None, given.dynamic, size, given.batch_size)
    for comparison in found:
        print(comparison)
    size = found[0].image_size[1:]
    fixed = f"batches of {given.batch_size} x {size[0]} x {size[1]}"
    free = "any number of images of any size" if given.dynamic else fixed
    print(f"{given.out}: {given.out.stat().st_size / 2**20:.1f} MiB, {free}")
    if given.benchmark:
        speed = measure_speed(given.out, detector, (given.batch_size, *size))
        for name, seconds in speed.items():
            print(f"{name}: {seconds * 1000:.0f} ms, {fixed}, {torch.get_num_threads()} threads")


def _load(given: argparse.Namespace) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mmdet's, of palettes and evaluators
        return load_detector(given.config, given.checkpoint, cfg_options=given.cfg_options)


if __name__ == "__main__":
    sys.exit(main())
