"""Command line: ``python -m fastdetr_mmdet.report WORK_DIR [WORK_DIR ...] --out report.html``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mmengine.config import DictAction

from .build import make_report
from .settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a report.

    Args:
        arguments: Of the command line; default: this process's.

    Returns:
        The exit status: 0, or 2 if nothing was written, with the reason on stderr.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names in letters the terminal lacks
    args = _parser().parse_args(arguments)
    settings = Settings(
        predictions=not args.no_predictions,
        max_images=args.max_images,
        images=args.samples,
        sheets=args.sheets,
        examples=args.examples,
        min_score=args.min_score,
        checkpoint=args.checkpoint,
        device=args.device,
    )
    try:
        make_report(args.work_dirs, args.out, settings, args.cfg_options, _print)
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    default = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m fastdetr_mmdet.report",
        description="Write one HTML file about training runs: curves, COCO figures, config "
        "differences, boxes beside ground truth, attention, errors. docs/report.md explains it.",
    )
    add = parser.add_argument
    add("work_dirs", nargs="+", metavar="WORK_DIR", help="of a run, or a folder of several")
    add("--out", default="report.html", metavar="FILE", help="file to write (%(default)s)")
    add("--no-predictions", action="store_true", help="curves and configs only; quick")
    add("--max-images", type=_positive, metavar="N", help="evaluate the first N images only")
    add("--checkpoint", choices=("best", "last"), default=default.checkpoint,
        help="which one of a run (%(default)s; without a best one, the last)")  # fmt: skip
    add("--min-score", type=_score, default=default.min_score, metavar="S",
        help="boxes below are neither drawn nor counted as errors (%(default)s)")  # fmt: skip
    add("--samples", type=_number, default=default.images, metavar="N",
        help="images with boxes beside ground truth (%(default)s)")  # fmt: skip
    add("--sheets", type=_number, default=default.sheets, metavar="N",
        help="attention contact sheets per run (%(default)s)")  # fmt: skip
    add("--examples", type=_number, default=default.examples, metavar="N",
        help="pictures per group of errors and run (%(default)s)")  # fmt: skip
    add("--device", help="as torch names it (a GPU if there is one)")
    add("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE",
        help="changes to every run's config: data_root=... where the data is now")  # fmt: skip
    return parser


def _number(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _score(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("must be between 0 and 1")
    return value


def _print(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
