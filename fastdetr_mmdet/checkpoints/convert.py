"""Command line: ``python -m fastdetr_mmdet convert SRC DST --method METHOD``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ..utils.cli import Parser, UsageError, command
from .rename_tables import METHODS


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Convert one file and print its config; exit status 1 on failure."""
    parser = Parser(
        prog="python -m fastdetr_mmdet convert",
        description="Convert a checkpoint of an official code, mmdet, detrex or Hugging Face, and "
        "name the shipped config that it belongs to. More: docs/checkpoints.md.",
    )
    parser.add_argument("src", metavar="SRC", help="checkpoint, or folder of a Hugging Face model")
    parser.add_argument("dst", metavar="DST", help="file or folder to write")
    text = f"code that made the checkpoint: {', '.join(METHODS)}"
    direction = parser.add_mutually_exclusive_group(required=True)
    direction.add_argument("--method", choices=METHODS, metavar="METHOD", help=text)
    text = "convert back: a file for the official code, or a folder for Hugging Face"
    direction.add_argument("--to", choices=("hf", "official"), help=text)
    head = parser.add_mutually_exclusive_group()
    text = (
        "80 (default for official weights): mmdet's labels, which the configs need; 91: COCO's "
        "category ids; or as many as the file has"
    )
    head.add_argument("--classes", type=int, metavar="N", help=text)
    text = "leave out the class branches, to train on other classes"
    head.add_argument("--drop-class-head", action="store_true", help=text)
    text = "your annotation file: classes with the same name keep their weights"
    head.add_argument("--classes-of", metavar="FILE", help=text)
    text = "with --classes-of: your class and its name in the checkpoint; repeatable"
    parser.add_argument("--map", action="append", default=[], metavar="MINE=ITS", help=text)
    given = parser.parse_args(arguments)
    if not all("=" in pair for pair in given.map) or (given.map and not given.classes_of):
        parser.error(f"--map {' '.join(given.map)} needs --classes-of, and the form MINE=ITS")
    if not Path(given.src).exists():
        raise UsageError(f"There is no checkpoint {given.src}. Give the path of a file.")
    if given.to:
        if given.classes is not None or given.drop_class_head or given.classes_of:
            parser.error("--classes, --classes-of and --drop-class-head need --method")
        from .exporting import export_checkpoint

        print(export_checkpoint(given.src, given.dst, given.to))
        return

    from .conversion import convert_checkpoint

    class_map = dict(pair.split("=", 1) for pair in given.map)
    del given.to, given.map
    print(convert_checkpoint(**vars(given), class_map=class_map))


if __name__ == "__main__":
    sys.exit(main())
