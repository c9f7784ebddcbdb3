"""Command line: ``python -m fastdetr_mmdet check ANNOTATIONS --images DIR``."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...utils.cli import (
    CfgOptions,
    Parser,
    UsageError,
    check_destination,
    command,
    positive_int,
    refuse_to_overwrite,
)
from ...utils.files import write_atomically
from .annotations import check_annotations
from .clean import clean
from .files import check_files, check_names
from .report import KINDS, MAX_ASPECT

if TYPE_CHECKING:
    from .report import Report
    from .sets import CheckedSet

CLEAN, ERRORS, WARNINGS = 0, 1, 3
# Warnings that do not change exit status 0.
_IN_SOUND_DATA = ("image-empty", "category-unused", "category-not-in-classes")


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Check annotation files, print the problems and write the requested files.

    Returns:
        The exit status: 0 if nothing is wrong, 1 if there are errors, 3 if there are only warnings,
        2 if there was nothing to check (no COCO file, unreadable JSON or config).
    """
    args = _parser().parse_args(arguments)
    gc.disable()  # large files are millions of objects that live until the end
    try:
        return _run(args)
    finally:
        gc.enable()


def _run(args: argparse.Namespace) -> int:
    sets = _sets(args)
    _check_outputs(args, sets)
    reports = [_check(checked, args) for checked in sets]
    if args.json:
        _write_json(args.json, {"reports": [report.to_dict(args.allow) for report in reports]})
    if any(report.errors(args.allow) for report in reports):
        return ERRORS
    allowed = [*args.allow, *_IN_SOUND_DATA]
    return WARNINGS if any(report.errors(allowed, True) for report in reports) else CLEAN


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m fastdetr_mmdet check",
        description="Find errors in a dataset in COCO format. Exit status: 0 none, 1 errors, 2 "
        "wrong usage or not a COCO file, 3 only warnings. All kinds: docs/data_check.md.",
    )
    add = parser.add_argument
    add("annotations", nargs="?", metavar="ANNOTATIONS", help="COCO annotation file")
    add("--images", metavar="DIR", help="folder that file names are relative to")
    add("--root", metavar="DIR", help="folder that all images must be in (default: --images)")
    add("--config", help="check the datasets and classes of this config instead")
    add("--split", nargs="+", choices=("train", "val", "test"), default=["train", "val"],
        help="with --config (default: train val)")  # fmt: skip
    add("--cfg-options", nargs="+", action=CfgOptions, metavar="KEY=VALUE",
        help="changes to the config, as for mim test")  # fmt: skip
    add("--no-images", action="store_true", help="check annotations only")
    add("--decode", action="store_true", help="decode every image (slow)")
    add("--workers", type=positive_int, metavar="N",
        help="threads that read images (default: by the number of cores)")  # fmt: skip
    add("--allow", nargs="+", default=[], metavar="KIND", choices=KINDS,
        help="kinds of problems to accept, after the file")  # fmt: skip
    add("--max-aspect", type=float, default=MAX_ASPECT, metavar="X",
        help="warn of boxes and images with a larger aspect ratio (%(default)g)")  # fmt: skip
    add("--json", metavar="FILE", help="also write all problems to a JSON file")
    add("--write-cleaned", metavar="OUT", help="write a copy of the annotations without the errors")
    return parser


def _sets(args: argparse.Namespace) -> list[CheckedSet]:
    """Datasets of the arguments."""
    from .sets import CheckedSet, sets_of_config

    if bool(args.annotations) == bool(args.config):
        raise UsageError("Give either an annotation file or --config.")
    if args.annotations:
        return [CheckedSet(args.annotations, args.images, args.root)]
    if args.images or args.root:
        raise UsageError("--images and --root need an annotation file; --config has its own.")
    from mmengine.config import Config

    try:
        config = Config.fromfile(args.config)
        config.merge_from_dict(args.cfg_options or {})
        sets = sets_of_config(config, args.split)
    except Exception as error:  # a config is code and may raise anything
        raise UsageError(f"{args.config} cannot be read: {error!r}.") from error
    if not sets:
        raise UsageError(f"{args.config} has no CocoDataset for {' or '.join(args.split)}.")
    return sets


def _check_outputs(args: argparse.Namespace, sets: list[CheckedSet]) -> None:
    """Refuse outputs that would overwrite a source or cannot be written."""
    sources = {checked.annotations for checked in sets}
    if args.write_cleaned and len(sources) > 1:
        raise UsageError(f"--write-cleaned needs one source, not {sorted(sources)}; use --split.")
    outputs = [Path(out) for out in (args.json, args.write_cleaned) if out]
    refuse_to_overwrite(outputs, [*sources, *([args.config] if args.config else [])])
    for out in outputs:
        check_destination(out)
        if out.exists() and out.suffix.lower() != ".json":  # for example an image
            raise UsageError(f"Refusing to overwrite {out}: not a .json file.")
    if len({os.path.realpath(out) for out in outputs}) < len(outputs):
        raise UsageError(f"--json and --write-cleaned name the same file {outputs[0]}.")


def _check(checked: CheckedSet, args: argparse.Namespace) -> Report:
    """Check one dataset, print its problems, and write a cleaned copy if requested."""
    from .sets import check_set

    started = time.perf_counter()
    report = check_set(checked, args.max_aspect)
    sizes: dict[int, tuple[int, int]] = {}
    looked = f"annotations in {time.perf_counter() - started:.1f} s"
    if checked.images is None or args.no_images:
        why = ": they are not on a local disk" if args.config else ": give --images DIR"
        looked += "; images not checked" + ("" if args.no_images else why)
        check_names(report)
    else:
        started = time.perf_counter()
        progress = _show_progress if sys.stderr.isatty() else None
        sizes = check_files(
            report, checked, decode=args.decode, workers=args.workers, progress=progress
        )
        looked += f", {len(sizes)} images in {time.perf_counter() - started:.1f} s"
    print(f"{report.text(args.allow)} ({looked})", flush=True)
    if args.write_cleaned:
        coco, counts = clean(report, checked.classes, sizes)
        _write_json(args.write_cleaned, coco)
        left = check_annotations(coco, args.write_cleaned, checked.classes)
        done = ", ".join(f"{n} x {kind}" for kind, n in counts.items()) or "nothing"
        print(f"{args.write_cleaned}: {left.sizes()}. Removed or fixed: {done}.")
        print(f"Use it in place of {checked.annotations}: train_ann or val_ann in the config, or "
              f"python -m fastdetr_mmdet init {args.write_cleaned}")  # fmt: skip
        if left.errors():
            print(f"Still wrong there: {'; '.join(map(left.sentence, left.errors()))}.")
    return report


def _write_json(path: str, value: dict) -> None:
    try:
        write_atomically(Path(path), json.dumps(value).encode())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error}") from error


def _show_progress(done: int, number: int) -> None:
    if done % 100 == 0 or done == number:
        end = "\n" if done == number else ""
        print(f"\r{done} of {number} images", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(None))
