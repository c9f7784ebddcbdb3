"""Command line: ``python -m fastdetr_mmdet export CONFIG CHECKPOINT OUT.onnx``."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from ..utils.cli import Parser, add_model_arguments, command, positive_int, refuse_to_overwrite


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Export, compare with PyTorch, and print both; see ``--help``.

    If onnxruntime and PyTorch disagree, no file is written.
    """
    given = _parser().parse_args(arguments)

    import torch

    from ..checkpoints.loading import load_detector
    from .comparison import measure_speed
    from .onnx_file import check_packages, export_onnx

    check_packages()  # before slow steps
    refuse_to_overwrite([given.out], [given.config, given.checkpoint])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mmdet's warnings on palettes and evaluators
        detector = load_detector(given.config, given.checkpoint, cfg_options=given.cfg_options)
    size = tuple(given.image_size) if given.image_size else None
    found = export_onnx(detector, given.out, None, given.dynamic, size, given.batch_size)
    for comparison in found:
        print(comparison)
    size = found[0].image_size[1:]
    fixed = f"batches of {given.batch_size} x {size[0]} x {size[1]}"
    free = "any batch and image size" if given.dynamic else fixed
    print(f"{given.out}: {given.out.stat().st_size / 2**20:.1f} MiB, {free}")
    if given.benchmark:
        speed = measure_speed(given.out, detector, (given.batch_size, *size))
        for name, seconds in speed.items():
            print(f"{name}: {seconds * 1000:.1f} ms, {fixed}, {torch.get_num_threads()} threads")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m fastdetr_mmdet export",
        description="Export a detector to ONNX and compare onnxruntime with PyTorch. How to use "
        "the file: docs/inference.md.",
    )
    add = parser.add_argument
    add_model_arguments(parser)
    add("out", metavar="OUT.onnx", type=Path, help="the file to write")
    text = "leave batch size, height and width free"
    add("--dynamic", action="store_true", help=text)
    text = "image size in pixels (default: from the config's test pipeline)"
    add("--image-size", type=positive_int, nargs=2, metavar=("H", "W"), help=text)
    text = "images per batch (default: 1)"
    add("--batch-size", type=positive_int, default=1, help=text)
    text = "also time onnxruntime and PyTorch on this CPU"
    add("--benchmark", action="store_true", help=text)
    return parser


if __name__ == "__main__":
    sys.exit(main())
