"""Command line: ``python -m fastdetr_mmdet.checkpoints.convert SRC DST --method METHOD``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..utils.cli import command
from .rename_tables import METHODS


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Convert one file and print which config it belongs to; exit status 1 if it cannot be."""
    parser = argparse.ArgumentParser(
        prog="python -m fastdetr_mmdet.checkpoints.convert",
        description="Convert an official checkpoint, one of mmdet's or detrex's, or a model of "
        "Hugging Face, and say which shipped config it belongs to.",
    )
    parser.add_argument("src", metavar="SRC", help="the checkpoint, or a hub's folder")
    parser.add_argument("dst", metavar="DST", help="the file to write")
    text = "whose checkpoint it is"
    direction = parser.add_mutually_exclusive_group(required=True)
    direction.add_argument("--method", choices=METHODS, help=text)
    text = "write our weights as the official code's, or as a folder for Hugging Face"
    direction.add_argument("--to", choices=("hf", "official"), help=text)
    head = parser.add_mutually_exclusive_group()
    text = (
        "80 (default for official weights): mmdet's labels of COCO, which the configs need; 91: "
        "COCO's category ids; or as many as the file has"
    )
    head.add_argument("--classes", type=int, metavar="N", help=text)
    text = "leave the class branches out, to train on other classes"
    head.add_argument("--drop-class-head", action="store_true", help=text)
    given = parser.parse_args(arguments)
    if given.to:
        if given.classes is not None or given.drop_class_head:
            parser.error("--classes and --drop-class-head need --method")
        from .exporting import export_checkpoint

        print(export_checkpoint(given.src, given.dst, given.to))
        return

    from .conversion import convert_checkpoint

    del given.to
    print(convert_checkpoint(**vars(given)))


if __name__ == "__main__":
    sys.exit(main())
