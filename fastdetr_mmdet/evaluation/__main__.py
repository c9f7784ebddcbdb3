"""Command line: ``python -m fastdetr_mmdet evaluation CONFIG CHECKPOINT``."""

from __future__ import annotations

import argparse
import functools
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from ..utils.cli import Parser, add_model_arguments, check_destination, command, refuse_to_overwrite


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; see ``--help``."""
    given = _parser().parse_args(arguments)
    if given.json:
        check_destination(given.json)
        refuse_to_overwrite([given.json], [given.config, given.checkpoint])

    from ..checkpoints.loading import load_detector
    from ..utils.files import write_atomically
    from .evaluate import open_set
    from .stages import NMS_IOU, measure_stages

    progress = functools.partial(print, file=sys.stderr, flush=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mmdet's warnings on palettes and evaluators
        model = load_detector(given.config, given.checkpoint, given.device, given.cfg_options)
        data = open_set(model.cfg, ("test", "val"), progress)
        rows, notes = measure_stages(model, data, progress)
    print(f"{len(data.infos)} images, NMS at IoU {NMS_IOU}")
    print("\n".join([*_table(rows), *notes]))
    if given.json:
        found = dict(config=given.config, checkpoint=given.checkpoint, images=len(data.infos))
        content = found | dict(nms_iou=NMS_IOU, stages=rows, notes=notes)
        write_atomically(given.json, (json.dumps(content, indent=1) + "\n").encode())


def _table(rows: Sequence[dict]) -> list[str]:
    names = ("AP", "AP50", "AR100")
    header = "".join(f"{name:>8}" for name in names)
    lines = [f"{'stage':<38}{header} | NMS:{header[5:]}"]
    for row in rows:
        stage = row["stage"] + (" (no classes)" if row["class_agnostic"] else "")
        plain, kept = ("".join(f"{of[name]:8.4f}" for name in names) for of in (row, row["nms"]))
        lines.append(f"{stage:<38}{plain} | {kept}")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m fastdetr_mmdet evaluation",
        description="Show where a detector loses AP on the config's test set: AP of its proposals, "
        "of the selected queries and of every decoder layer, with and without NMS, and with the "
        "true boxes as references. More: docs/convergence.md.",
    )
    add = parser.add_argument
    add_model_arguments(parser)
    add("--json", type=Path, metavar="FILE", help="also write the table as JSON")
    add("--device", help="default: cuda if available")
    return parser


if __name__ == "__main__":
    sys.exit(main())
