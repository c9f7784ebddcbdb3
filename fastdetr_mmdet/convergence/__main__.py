"""How fast configs learn: ``python -m fastdetr_mmdet.convergence CONFIG... --epochs N``.

Trains the configs under one budget, each with the same seeds, and writes curves, a table and JSON:
AP at each epoch, and the epochs and minutes to a target AP. Started again it keeps what is finished
and continues what is not.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from mmengine.config import DictAction

from .budget import apply_budget
from .data_check import check_data
from .found import find_runs
from .launch import train_all
from .reference import read_reference
from .results import read_curve
from .run import Run
from .write import write_results

DEFAULT_SEEDS = (0, 1)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; see ``--help``. Returns 1 if a run failed, 2 if nothing could be started."""
    args = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _leave)
    if not args.results_only and (not args.configs or args.epochs is None):
        _parser().error("give CONFIG... and --epochs; only --results-only does without")
    notes: list[str] = []
    try:
        references = [read_reference(path) for path in args.reference]
        if args.results_only:
            names = [path.stem for path in args.configs]
            runs, notes = find_runs(args.out, names, args.seeds, args.epochs)
        else:
            runs = prepare(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        failed = {} if args.results_only else train_all(runs, args.jobs, _tell)
    except KeyboardInterrupt:
        print("Interrupted. The same command continues where the runs are.", file=sys.stderr)
        return 130
    curves = [read_curve(run, failed.get(run)) for run in runs]
    names_of_failed = "; ".join(map(str, failed))
    if not any(curve.points for curve in curves):
        if failed:
            share = "All" if len(failed) == len(runs) else f"{len(failed)} of"
            why = f"{share} {len(runs)} runs failed, for the reasons above: {names_of_failed}."
        else:
            why = "no run has been validated yet, so there is nothing to show."
        print(f"error: {why}", file=sys.stderr)
        return 1
    budget = _budget(args, runs)
    for path in write_results(args.out, curves, budget, args.target, references, notes):
        print(path)
    if failed:
        print(f"{len(failed)} of {len(runs)} runs failed: {names_of_failed}.", file=sys.stderr)
    return 1 if failed else 0


def _budget(args: argparse.Namespace, runs: list[Run]) -> dict[str, Any]:
    """What the runs have in common, as far as this call knows it."""
    budget: dict[str, Any] = {
        "epochs": max(run.epochs for run in runs),
        "seeds": list(dict.fromkeys(run.seed for run in runs)),
    }
    if not args.results_only:
        options = {key: str(value) for key, value in (args.cfg_options or {}).items()}
        budget |= {"val_interval": args.val_interval, "jobs": args.jobs, "cfg_options": options}
    return budget


def prepare(args: argparse.Namespace) -> list[Run]:
    """All runs, seed by seed, each with its config written; none if any cannot be run.

    Raises:
        ValueError, OSError: if a config cannot be compared so.
    """
    names = [path.stem for path in args.configs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"Configs are told apart by name, but {', '.join(twice)} comes twice.")
    prepared = []
    for seed in args.seeds or DEFAULT_SEEDS:
        for path in args.configs:
            run = Run(path.stem, seed, args.epochs, args.out)
            cfg = apply_budget(
                path, args.epochs, seed, args.val_interval, args.data_root, args.cfg_options
            )
            if not run.finished:
                check_data(cfg, path, args.cfg_options)
            prepared.append((run, cfg))
    for run, cfg in prepared:
        run.prepare(cfg)
    return [run for run, _ in prepared]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fastdetr_mmdet.convergence",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "configs", nargs="*", type=Path, metavar="CONFIG", help="the baseline first"
    )
    parser.add_argument("--data-root", help="data set, for configs that take data_root")
    parser.add_argument("--epochs", type=_positive, help="of every run")
    parser.add_argument("--seeds", type=int, nargs="+", help="one run each (default: 0 1)")
    parser.add_argument(
        "--target",
        type=float,
        nargs="+",
        metavar="AP",
        help="AP to reach, from 0 to 1 (default: half of the best, and the first config's best)",
    )
    parser.add_argument(
        "--val-interval",
        type=_positive,
        default=1,
        help="epochs between validations (default: %(default)s)",
    )
    parser.add_argument(
        "--jobs", type=_positive, default=1, help="runs side by side (default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("work_dirs/convergence"),
        help="folder for runs and results (default: %(default)s)",
    )
    parser.add_argument(
        "--reference",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="published curves to draw beside, as JSON (docs/convergence.md)",
    )
    parser.add_argument(
        "--results-only",
        action="store_true",
        help="write results of what --out holds so far, and train nothing; CONFIG..., --seeds and "
        "--epochs, if given, choose from it",
    )
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, help="as for mim train, for all configs"
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return value


def _tell(line: str) -> None:
    print(line, flush=True)


def _leave(signum, frame) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
