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

from mmengine.config import DictAction

from .budget import apply_budget
from .launch import train_all
from .reference import read_reference
from .results import read_curve
from .run import Run
from .write import write_results


def main(arguments: list[str] | None = None) -> int:
    """Run the command; see ``--help``. Returns 1 if a run failed, 2 if nothing could be started."""
    args = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _leave)
    try:
        references = [read_reference(path) for path in args.reference]
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
    budget = {
        "epochs": args.epochs,
        "seeds": args.seeds,
        "val_interval": args.val_interval,
        "jobs": args.jobs,
        "cfg_options": {key: str(value) for key, value in (args.cfg_options or {}).items()},
    }
    if not any(curve.points for curve in curves):
        print("error: no run has been validated yet, so there is nothing to show.", file=sys.stderr)
        return 1
    for path in write_results(args.out, curves, budget, args.target, references):
        print(path)
    if failed:
        names = "; ".join(map(str, failed))
        print(f"{len(failed)} of {len(runs)} runs failed: {names}.", file=sys.stderr)
    return 1 if failed else 0


def prepare(args: argparse.Namespace) -> list[Run]:
    """All runs, seed by seed, each with its config written.

    Raises:
        ValueError, OSError: if a config cannot be compared so.
    """
    names = [path.stem for path in args.configs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"Configs are told apart by name, but {', '.join(twice)} comes twice.")
    runs = []
    for seed in args.seeds:
        for path in args.configs:
            run = Run(path.stem, seed, args.epochs, args.out)
            cfg = apply_budget(
                path, args.epochs, seed, args.val_interval, args.data_root, args.cfg_options
            )
            run.prepare(cfg)
            runs.append(run)
    return runs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fastdetr_mmdet.convergence",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "configs", nargs="+", type=Path, metavar="CONFIG", help="the baseline first"
    )
    parser.add_argument("--data-root", help="data set, for configs that take data_root")
    parser.add_argument("--epochs", type=_positive, required=True, help="of every run")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1], help="one run each (default: 0 1)"
    )
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
        "--results-only", action="store_true", help="write results of what has been trained so far"
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
