"""Command line: ``python -m fastdetr_mmdet.checkpoints.convert SRC DST --method METHOD``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .checkpoint import Report, convert_checkpoint
from .files import CheckpointError
from .state_dicts import METHODS, convert_state_dict

__all__ = ["METHODS", "CheckpointError", "Report", "convert_checkpoint", "convert_state_dict"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert one file and print which config it belongs to.

    Args:
        arguments: Of the command line; default: this process's.

    Returns:
        The exit status: 0, or 1 if the file cannot be converted, with the reason on stderr.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fastdetr_mmdet.checkpoints.convert",
        description="Convert an official checkpoint, or one of mmdet's own Deformable or "
        "Conditional DETR, and say which shipped config it belongs to.",
    )
    parser.add_argument("src", metavar="SRC", help="the checkpoint to convert")
    parser.add_argument("dst", metavar="DST", help="the file to write")
    parser.add_argument(
        "--method", required=True, choices=sorted(METHODS), help="whose checkpoint it is"
    )
    parser.add_argument(
        "--classes",
        type=int,
        metavar="N",
        help="80 (default for official weights): mmdet's labels of COCO, which the configs need; "
        "91: COCO's category ids; or as many as the file has",
    )
    parser.add_argument(
        "--drop-class-head",
        action="store_true",
        help="leave the class branches out, to train on other classes",
    )
    given = parser.parse_args(arguments)
    try:
        report = convert_checkpoint(
            given.src, given.dst, given.method, given.classes, given.drop_class_head
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
