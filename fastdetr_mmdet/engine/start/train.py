"""``python -m fastdetr_mmdet train RUN``: what ``mim train`` does, with the run's own config."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ...utils.cli import Parser, UserError, command


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Train, or continue where an interrupted training stopped."""
    parser = Parser(
        prog="python -m fastdetr_mmdet train",
        description="Train RUN/config.py, or continue its training. Further options are those of "
        "mmdet's tools/train.py, such as --cfg-options KEY=VALUE and --amp.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder that init made, or a config")
    args, rest = parser.parse_known_args(arguments)
    _refuse_unknown(parser, rest)
    from .run_folder import RunFolder

    run = RunFolder.find(args.run)
    done, planned = run.epochs()
    if done >= planned > 0 and "--cfg-options" not in rest:
        raise UserError(
            f"Nothing is left to do: {run.work_dir} holds a training of {done} of {planned} "
            f"epochs. Next: python -m fastdetr_mmdet predict {args.run} IMAGES... To train another "
            "time, make another run with init; to train on, see docs/resume.md."
        )
    if done and "--resume" not in rest:
        print(f"Continues after epoch {done} of {planned} in {run.work_dir}.", flush=True)
        rest = ["--resume", *rest]
    from ..mmdet_tools import run as run_tool

    sys.argv = ["train.py", str(run.config_file), *rest]
    run_tool("train.py")


_OPTIONS = ("--cfg-options", "--amp", "--auto-scale-lr", "--resume", "--work-dir", "--launcher",
            "--local_rank", "--local-rank")  # fmt: skip


def _refuse_unknown(parser: Parser, rest: list[str]) -> None:
    for word in rest:
        option = word.split("=")[0].removeprefix("--")
        if word.startswith("--") and f"--{option}" not in _OPTIONS:
            from ...utils.derived_keys import KEY_OF

            if key := KEY_OF.get(option.replace("-", "_")):
                parser.error(f"train has no option --{option}: give --cfg-options {key}=...")
            parser._option_string_actions.update(dict.fromkeys(_OPTIONS))  # type: ignore[arg-type]
            parser.error(f"unrecognized arguments: {word}")


if __name__ == "__main__":
    sys.exit(main())
