"""Shared parts of command lines: exit statuses, errors for users, argument types."""

from __future__ import annotations

import argparse
import difflib
import functools
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

Main = Callable[..., int]  # arguments: Sequence[str] | None = None
_MAIN = Path(__file__).parents[1] / "__main__.py"  # of python -m fastdetr_mmdet


class UserError(ValueError):
    """An error that commands print without traceback: what failed, its value, and the fix."""

    status = 1


class UsageError(UserError):
    """Arguments that contradict each other or name something that does not exist."""

    status = 2


def only_help() -> bool:
    """Whether this process runs a command of this package only to print its help.

    The imports that the help does not need are then skipped. ``sys.argv[0]`` is "-m" while
    ``python -m`` imports the packages of the module, and then the module's file.
    """
    name = __name__.split(".")[0]
    listed = name in sys.orig_argv and len(sys.argv) == 1  # python -m fastdetr_mmdet
    return (
        sys.argv[0] in ("-m", str(_MAIN))
        and any(word == name or word.startswith(f"{name}.") for word in sys.orig_argv)
        and "--" not in sys.argv  # after it, "-h" is a file name
        and (listed or not {"-h", "--help"}.isdisjoint(sys.argv[1:]))
    )


def command(main: Callable[[Sequence[str] | None], int | None]) -> Main:
    """Decorate the main function of a command line.

    The exit status is 0 on success, 1 if the command failed or found problems, and 2 for wrong
    usage (as in argparse). ``UserError`` and ``OSError`` are printed to stderr without traceback.
    """

    @functools.wraps(main)
    def wrapped(arguments: Sequence[str] | None = None) -> int:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # terminals may lack characters of names
                stream.reconfigure(errors="backslashreplace")
        try:
            return main(arguments) or 0
        except (UserError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return error.status if isinstance(error, UserError) else 1

    return wrapped


class Parser(argparse.ArgumentParser):
    """Suggests the nearest option for an unknown one, and accepts no abbreviations."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Refuse unknown options before argparse reports missing arguments."""
        words = itertools.takewhile(
            lambda word: word != "--", sys.argv[1:] if args is None else args
        )
        known = self._option_string_actions
        unknown = [word for word in words if word[:2] == "--" and word.split("=")[0] not in known]
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Add a suggestion."""
        for word in message.partition("unrecognized arguments: ")[2].split():
            near = difflib.get_close_matches(word.split("=")[0], self._option_string_actions, 1)
            if near:
                message += f" (did you mean {near[0]}?)"
        super().error(message)


def check_destination(path: Path) -> None:
    """Raise UsageError if a file cannot be written there."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the file to write in it.")
    if not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written: make the folder {path.parent} first.")


def refuse_to_overwrite(outputs: Iterable[Path], sources: Iterable[str | Path]) -> None:
    """Raise UsageError if an output is the same file as a source, under any name or link.

    Args:
        outputs: Files to write, which may exist.
        sources: Files to read; missing files and URLs are ignored.
    """
    read = {_identity(source) for source in sources} - {None}
    for path in outputs:
        if _identity(path) in read:
            raise UsageError(f"Refusing to overwrite {path}: it is an input. Name another output.")


def _identity(path: str | Path) -> tuple[int, int] | None:
    """The values that os.path.samefile compares, read once per file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class CfgOptions(argparse.Action):
    """mmengine's DictAction for ``--cfg-options KEY=VALUE ...``, imported only when used."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Merge the values into earlier ones."""
        from mmengine.config import DictAction

        wrong = [value for value in values if "=" not in value]
        if wrong:
            raise argparse.ArgumentError(self, f"{wrong[0]!r} must be KEY=VALUE")
        action = DictAction(self.option_strings, self.dest)
        action(parser, namespace, values, option_string)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add CONFIG, CHECKPOINT and ``--cfg-options``, for commands on a trained detector."""
    add = parser.add_argument
    add("config", metavar="CONFIG", help="the detector's config")
    add("checkpoint", metavar="CHECKPOINT", help="the detector's weights")
    add("--cfg-options", nargs="+", action=CfgOptions, metavar="KEY=VALUE",
        help="changes to the config, as for mim test")  # fmt: skip


def _at_least(lowest: int, text: str) -> int:
    if not re.fullmatch(r"[+-]?\d+", text) or int(text) < lowest:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least {lowest}")
    return int(text)


# Argument types.
positive_int, natural_int = functools.partial(_at_least, 1), functools.partial(_at_least, 0)


def unit_float(text: str) -> float:
    """Argument type: a number in [0, 1]."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number between 0 and 1")
    return value
