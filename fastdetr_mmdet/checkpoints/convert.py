"""Command line: ``python -m fastdetr_mmdet.checkpoints.convert SRC DST --method METHOD``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..utils.cli import Parser, command
from .rename_tables import METHODS


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Convert one file and print which config it belongs to; exit status 1 if it cannot be."""
    parser = Parser(
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
    text = "COCO annotation file of your own classes: rows of classes with the same name are kept"
    head.add_argument("--classes-of", metavar="FILE", help=text)
    text = "your class and the checkpoint's name for it, with --classes-of; may be repeated"
    parser.add_argument("--map", action="append", default=[], metavar="MINE=ITS", help=text)
    given = parser.parse_args(arguments)
    if not all("=" in pair for pair in given.map) or (given.map and not given.classes_of):
        parser.error(f"--map {' '.join(given.map)} needs --classes-of, and the form MINE=ITS")
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
