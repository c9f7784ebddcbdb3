"""Command line: ``python -m fastdetr_mmdet shapes OUT``."""

import sys
from collections.abc import Sequence

from ...utils.cli import Parser, command, natural_int


@command
def main(arguments: Sequence[str] | None) -> None:
    """Write the dataset and describe it."""
    parser = Parser(
        prog="python -m fastdetr_mmdet shapes",
        description="Render the embedded dataset of coloured shapes, in COCO format.",
    )
    add = parser.add_argument
    add("out", metavar="OUT", help="new or empty folder")
    for name, default, what in (
        ("--train", 1024, "training images"),
        ("--val", 128, "validation images"),
        ("--seed", 0, "random seed"),
    ):
        add(name, type=natural_int, default=default, metavar="N", help=f"{what} (%(default)s)")
    args = parser.parse_args(arguments)

    from .scene import SPLITS
    from .write import summary, write_shapes

    write_shapes(args.out, args.train, args.val, args.seed, quiet=False)
    for split in SPLITS:
        print(summary(args.out, split))


if __name__ == "__main__":
    sys.exit(main(None))
