"""Command line: ``python -m fastdetr_mmdet.datasets.check ANNOTATIONS --images DIR``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config, DictAction

from ...utils.files import would_overwrite
from .check import MAX_ASPECT, check_annotations
from .clean import CannotCleanError, clean
from .files import check_files, check_names, usable_cores
from .kinds import check_kind_names
from .read import NotCocoError
from .report import Report, write_json
from .sets import CheckedSet, check_set, sets_of_config

CLEAN, ERRORS, UNREADABLE, WARNINGS = 0, 1, 2, 3
# Warnings that leave the exit status 0: images of the background, and classes that are not used
_IN_SOUND_DATA = ("image-empty", "category-unused", "category-not-in-classes")


class _UsageError(ValueError):
    """The arguments do not fit each other or the disk; the message is a sentence."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check annotation files, print what is wrong and write what was asked for.

    Args:
        arguments: Of the command line; default: this process's.

    Returns:
        The exit status: 0 if nothing is wrong, 1 if there are errors, 3 if there are warnings
        alone, 2 if there was nothing to check (no COCO file, unreadable JSON or config), with the
        reason on stderr.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names in letters the terminal lacks
    args = _parser().parse_args(arguments)
    try:
        check_kind_names(args.allow)
        sets = _sets(args)
        _check_outputs(args, sets)
        reports = [_check(checked, args) for checked in sets]
        if args.json:
            write_json(args.json, {"reports": [r.to_dict(args.allow) for r in reports]})
    except (NotCocoError, CannotCleanError, _UsageError) as error:
        print(error, file=sys.stderr)
        return UNREADABLE
    except (OSError, ValueError) as error:
        print(f"The check could not be finished: {error}", file=sys.stderr)
        return UNREADABLE
    if any(report.errors(args.allow) for report in reports):
        return ERRORS
    allowed = [*args.allow, *_IN_SOUND_DATA]
    return WARNINGS if any(report.errors(allowed, True) for report in reports) else CLEAN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fastdetr_mmdet.datasets.check",
        description="Find what is wrong with a data set in COCO's format. Exit status: 0 nothing "
        "wrong, 1 errors, 2 no COCO file, 3 warnings alone. docs/data_check.md explains what is "
        "found.",
    )
    add = parser.add_argument
    add("annotations", nargs="?", metavar="ANNOTATIONS", help="COCO annotation file")
    add("--images", metavar="DIR", help="folder that file names are relative to")
    add("--root", metavar="DIR", help="the data set's folder, which no file may leave (--images)")
    add("--config", help="check the data sets of this config against its classes instead")
    add("--split", nargs="+", choices=("train", "val", "test"), default=["train", "val"])
    add("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE", help="as for mmdet")
    add("--no-images", action="store_true", help="do not look for images nor into them")
    add("--decode", action="store_true", help="decode every image, not only the doubtful ones")
    add("--workers", type=int, default=usable_cores(), help="processes for images (%(default)s)")
    add("--allow", nargs="+", default=[], metavar="KIND", help="kinds that are all right here")
    add("--max-aspect", type=float, default=MAX_ASPECT, help="absurd from here on (%(default)g)")
    add("--json", metavar="FILE", help="write everything that was found")
    add("--write-cleaned", metavar="OUT", help="write a copy without what is wrong")
    return parser


def _sets(args: argparse.Namespace) -> list[CheckedSet]:
    """What the arguments name."""
    if bool(args.annotations) == bool(args.config):
        raise _UsageError("Give an annotation file, or --config with a config, one of the two.")
    if args.annotations:
        return [CheckedSet(args.annotations, args.images, args.root)]
    if args.images or args.root:
        raise _UsageError("--images and --root go with an annotation file; --config has its own.")
    try:
        config = Config.fromfile(args.config)
        config.merge_from_dict(args.cfg_options or {})
        sets = sets_of_config(config, args.split)
    except Exception as error:  # a config is code: it may raise anything
        raise _UsageError(f"{args.config} cannot be read: {error!r}.") from error
    if not sets:
        raise _UsageError(
            f"{args.config} has no data set of type CocoDataset for {' or '.join(args.split)}."
        )
    return sets


def _check_outputs(args: argparse.Namespace, sets: list[CheckedSet]) -> None:
    """Refuse outputs that would destroy a source or cannot be written, before the work."""
    if args.write_cleaned and len({checked.annotations for checked in sets}) > 1:
        raise _UsageError(
            "--write-cleaned writes one file, but the config names several annotation files; "
            "choose one by --split train or --split val."
        )
    outputs = [out for out in (args.json, args.write_cleaned) if out]
    for out in outputs:
        folder = Path(out).absolute().parent
        if not folder.is_dir():
            raise _UsageError(f"{folder} is no folder; {out} cannot be written there.")
        if os.path.isdir(out):
            raise _UsageError(f"{out} is a folder; give a file to write.")
        sources = [checked.annotations for checked in sets] + [args.config] * bool(args.config)
        if would_overwrite([Path(out)], sources):
            raise _UsageError(f"{out} is the source itself; give another file to write.")
        if os.path.exists(out) and not out.lower().endswith(".json"):  # an image, say
            raise _UsageError(f"{out} exists and is no .json file; give another file to write.")
    if len(outputs) == 2 and os.path.realpath(outputs[0]) == os.path.realpath(outputs[1]):
        raise _UsageError("--json and --write-cleaned name the same file.")


def _check(checked: CheckedSet, args: argparse.Namespace) -> Report:
    """Check one data set, print what was found, and write a cleaned copy if asked to."""
    started = time.perf_counter()
    report = check_set(checked, args.max_aspect)
    sizes: dict[int, tuple[int, int]] = {}
    looked = f"annotations in {time.perf_counter() - started:.1f} s"
    if checked.images is None or args.no_images:
        why = ": they are on no disk of this machine" if args.config else ": give --images DIR"
        looked += "; images not looked at" + ("" if args.no_images else why)
        check_names(report)
    else:
        started = time.perf_counter()
        progress = _show_progress if sys.stderr.isatty() else None
        sizes = check_files(
            report,
            checked.images,
            checked.root,
            decode=args.decode,
            workers=args.workers,
            progress=progress,
        )
        looked += f", {len(sizes)} images in {time.perf_counter() - started:.1f} s"
    print(f"{report.text(args.allow)} ({looked})", flush=True)
    if args.write_cleaned:
        coco, counts = clean(report, checked.classes, sizes)
        write_json(args.write_cleaned, coco)
        left = check_annotations(coco, args.write_cleaned, checked.classes)
        done = ", ".join(f"{n} x {kind}" for kind, n in counts.items()) or "nothing"
        print(f"{args.write_cleaned}: {left.sizes()}. Left out or mended: {done}.")
        if left.errors():
            print(f"Still wrong there: {'; '.join(map(left.sentence, left.errors()))}.")
    return report


def _show_progress(done: int, number: int) -> None:
    if done % 100 == 0 or done == number:
        end = "\n" if done == number else ""
        print(f"\r{done} of {number} images", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
