"""Command line: ``python -m fastdetr_mmdet report WORK_DIR [WORK_DIR ...] --out report.html``."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from dataclasses import fields

from ..utils.cli import CfgOptions, Parser, command, natural_int, positive_int, unit_float
from .settings import Settings


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Write a report; see ``--help``."""
    default = Settings()
    parser = Parser(
        prog="python -m fastdetr_mmdet report",
        description="Write one HTML file about training runs: curves, AP, differences of configs, "
        "predictions, attention and errors. More: docs/report.md.",
    )
    add = parser.add_argument
    add("work_dirs", nargs="+", metavar="WORK_DIR",
        help="work directory of a run, or a folder of several")  # fmt: skip
    add("--out", default="report.html", metavar="FILE", help="file to write (%(default)s)")
    add("--no-predictions", action="store_false", dest="predictions",
        help="curves and configs only, without running a model")  # fmt: skip
    add("--max-images", type=positive_int, metavar="N", help="evaluate the first N images only")
    add("--checkpoint", choices=("best", "last"), default=default.checkpoint,
        help="checkpoint of each run (%(default)s; the last if there is no best)")  # fmt: skip
    add("--min-score", type=unit_float, default=default.min_score, metavar="S",
        help="ignore boxes with lower scores (%(default)s)")  # fmt: skip
    add("--samples", type=natural_int, default=default.images, metavar="N", dest="images",
        help="images with boxes beside ground truth (%(default)s)")  # fmt: skip
    add("--sheets", type=natural_int, default=default.sheets, metavar="N",
        help="attention contact sheets per run (%(default)s)")  # fmt: skip
    add("--examples", type=natural_int, default=default.examples, metavar="N",
        help="pictures per type of error and run (%(default)s)")  # fmt: skip
    add("--device", help="default: cuda if available")
    add("--cfg-options", nargs="+", action=CfgOptions, metavar="KEY=VALUE",
        help="changes to every run's config, such as data_root=...")  # fmt: skip
    args = parser.parse_args(arguments)

    from .build import make_report

    names = [field.name for field in fields(Settings) if hasattr(args, field.name)]
    settings = Settings(**{name: getattr(args, name) for name in names})
    show = functools.partial(print, flush=True)
    make_report(args.work_dirs, args.out, settings, args.cfg_options, show)


if __name__ == "__main__":
    sys.exit(main())
