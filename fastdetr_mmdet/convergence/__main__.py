"""Compare how fast configs learn.

Trains the configs with the same budget and the same seeds, and writes curves, a table and JSON: AP
at each epoch, and the epochs and minutes to a target AP. Started again, it keeps finished runs and
continues the others.
"""

from __future__ import annotations

import argparse
import functools
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..utils.cli import CfgOptions, Parser, UsageError, UserError, command, positive_int

if TYPE_CHECKING:
    from .runs import Run


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see ``--help``. Returns 1 if a run failed, 130 if it was interrupted."""
    args = _parser().parse_args(arguments)

    from .results import read_curve, read_reference, write_results
    from .runs import discover_runs, train_all

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # KeyboardInterrupt
    references = [read_reference(path) for path in args.reference]
    notes: list[str] = []
    failed: dict[Run, str] = {}
    budget: dict[str, Any] = {}
    if args.results_only:
        names = [path.stem for path in args.configs]
        runs, notes = discover_runs(args.out, names, args.seeds, args.epochs)
    elif not args.configs or args.epochs is None:
        raise UsageError("Give CONFIG... and --epochs; only --results-only works without them.")
    else:
        runs = prepare(args)
        options = {key: str(value) for key, value in (args.cfg_options or {}).items()}
        budget = {"val_interval": args.val_interval, "jobs": args.jobs, "cfg_options": options}
        try:
            failed = train_all(runs, args.jobs, functools.partial(print, flush=True))
        except KeyboardInterrupt:
            print("Interrupted. The same command continues where the runs are.", file=sys.stderr)
            return 130
    curves = [read_curve(run, failed.get(run)) for run in runs]
    message = f"{len(failed)} of {len(runs)} runs failed: {'; '.join(map(str, failed))}."
    if not any(curve.points for curve in curves):
        raise UserError(message if failed else "No run has been validated yet.")
    epochs, seeds = max(run.epochs for run in runs), list(dict.fromkeys(run.seed for run in runs))
    budget = {"epochs": epochs, "seeds": seeds} | budget
    for path in write_results(args.out, curves, budget, args.target, references, notes):
        print(path)
    if failed:
        raise UserError(message)
    return 0


def prepare(args: argparse.Namespace) -> list[Run]:
    """All runs, seed by seed, each with its config written; none if any cannot be run."""
    from .budget import apply_budget, check_data
    from .runs import Run

    names = [path.stem for path in args.configs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"Two configs have the name {', '.join(twice)}. Rename one.")
    configs, options = {}, (args.val_interval, args.data_root, args.cfg_options)
    for seed in args.seeds or (0, 1):
        for path in args.configs:
            run = Run(path.stem, seed, args.epochs, args.out)
            configs[run] = apply_budget(path, args.epochs, seed, *options)
            if run.final_ap is None:
                check_data(configs[run], path)
    for run, cfg in configs.items():
        run.prepare(cfg)
    return list(configs)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m fastdetr_mmdet convergence", description=__doc__)
    add = parser.add_argument
    add("configs", nargs="*", type=Path, metavar="CONFIG",
        help="configs to compare, the baseline first")  # fmt: skip
    add("--data-root", metavar="DIR", help="folder of the dataset")
    add("--epochs", type=positive_int, metavar="N", help="epochs of every run")
    add("--seeds", type=int, nargs="+", metavar="N", help="one run per seed (default: 0 1)")
    add("--target", type=float, nargs="+", metavar="AP", help="AP to reach, from 0 to 1 (default: "
        "half of the best, and the first config's best)")  # fmt: skip
    add("--val-interval", type=positive_int, default=1, metavar="N",
        help="epochs between validations (default: %(default)s)")  # fmt: skip
    add("--jobs", type=positive_int, default=1, metavar="N",
        help="parallel runs, each on its own GPU (default: %(default)s)")  # fmt: skip
    add("--out", type=Path, default=Path("work_dirs/convergence"), metavar="DIR",
        help="folder for runs and results (default: %(default)s)")  # fmt: skip
    add("--reference", type=Path, nargs="+", default=[], metavar="FILE",
        help="JSON files of published curves, to draw too (docs/convergence.md)")  # fmt: skip
    add("--results-only", action="store_true", help="train nothing; write the results of the "
        "runs in --out, or of those that CONFIG..., --seeds and --epochs select")  # fmt: skip
    add("--cfg-options", nargs="+", action=CfgOptions, metavar="KEY=VALUE",
        help="changes to all configs, as for mim train")  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
