"""Command lines of the benchmarks: a parser whose help shows defaults, and no log lines."""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults other than None."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def parser(file: str, doc: str) -> argparse.ArgumentParser:
    """Parser of a module, described by the first line of its docstring."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks.{Path(file).stem}",
        description=doc.splitlines()[0],
        formatter_class=_Defaults,
    )


def quiet() -> None:
    """Turn off warnings and mmengine's log lines per parameter; errors stay."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
