"""Command line: ``python -m fastdetr_mmdet.datasets.shapes OUT``."""

import argparse
import sys

from .scene import SPLITS
from .write import summary, write_shapes


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fastdetr_mmdet.datasets.shapes", description="Write the shapes data set."
    )
    parser.add_argument("out", help="new or empty folder for the data set")
    parser.add_argument("--train", type=int, default=1024, help="training images (%(default)s)")
    parser.add_argument("--val", type=int, default=128, help="validation images (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed, 0 or more (%(default)s)")
    args = parser.parse_args(arguments)
    try:
        write_shapes(args.out, args.train, args.val, args.seed, quiet=False)
    except (ValueError, OSError) as error:
        print(f"shapes: {error}", file=sys.stderr)
        return 1
    for split in SPLITS:
        print(summary(args.out, split))
    return 0


if __name__ == "__main__":
    sys.exit(main())
