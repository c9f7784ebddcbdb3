"""``python -m fastdetr_mmdet train RUN``: what ``mim train`` does, with the run's own config."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ...utils.cli import CfgOptions, Parser, UserError, command


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Train, or continue an interrupted training."""
    parser = Parser(
        prog="python -m fastdetr_mmdet train",
        description=(
            "Train RUN/config.py, or continue its training. Checkpoints and logs go to RUN/work, "
            "or the folder that --work-dir DIR names. Also accepts other options of mmdet's "
            "tools/train.py, such as --cfg-options KEY=VALUE and --amp."
        ),
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder that init made, or a config")
    _refuse_unknown(parser, sys.argv[1:] if arguments is None else arguments)
    args, rest = parser.parse_known_args(arguments)
    # options of mmdet's tool that set the folder and length of training
    options = Parser(prog=parser.prog, add_help=False)
    options.add_argument("--work-dir", type=Path)
    options.add_argument("--cfg-options", nargs="+", action=CfgOptions)
    given, _ = options.parse_known_args(rest)
    from .run_folder import RunFolder

    run = RunFolder.find(args.run)
    run.work_dir = given.work_dir or run.work_dir
    name = shlex.quote(str(args.run))
    done, planned = run.epochs(given.cfg_options)
    if done >= planned > 0:
        raise UserError(
            f"Nothing is left to do: {run.work_dir} holds a training of {done} epochs, and "
            f"{planned} are planned. Next: python -m fastdetr_mmdet predict {name} IMAGES... To "
            f"train longer, add --cfg-options max_epochs={2 * done}; to train again, make a new "
            "run (init) or give another --work-dir."
        )
    if done and "--resume" not in rest:
        print(f"Continuing after epoch {done} of {planned} in {run.work_dir}.", flush=True)
        rest = ["--resume", *rest]
    from ..mmdet_tools import run as run_tool

    sys.argv = ["train.py", str(run.config_file), *rest]
    run_tool("train.py")
    print(f"Next: python -m fastdetr_mmdet predict {name} IMAGES...\n"
          f"      python -m fastdetr_mmdet report {shlex.quote(str(run.work_dir))}")  # fmt: skip


_OPTIONS = ("--cfg-options", "--amp", "--auto-scale-lr", "--resume", "--work-dir", "--launcher",
            "--local_rank", "--local-rank")  # fmt: skip


def _refuse_unknown(parser: Parser, words: Sequence[str]) -> None:
    for word in words:
        option = word.split("=")[0].removeprefix("--")
        if word.startswith("--") and f"--{option}" not in (*_OPTIONS, "--help"):
            from ...utils.derived_keys import KEY_OF

            if key := KEY_OF.get(option.replace("-", "_")):
                parser.error(f"train has no option --{option}: give --cfg-options {key}=...")
            parser._option_string_actions.update(dict.fromkeys(_OPTIONS))  # type: ignore[arg-type]
            parser.error(f"unrecognized arguments: {word}")
