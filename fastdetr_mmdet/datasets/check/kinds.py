"""Kinds of problems a data set can have, what training does about each, and its fix."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from .read import LISTS


class Kind(NamedTuple):
    """One kind of problem, as ``kinds.txt`` lists it.

    Args:
        name: As ``--allow`` and the JSON report have it.
        severity: "error": training fails or learns something wrong. "warning": harmless, or a
            matter of taste.
        stops: Whether ``DatasetCheckHook`` stops a run.
        what: What is wrong with one entry.
        training: What mmdet does about it where nobody checks.
        cleaned: What a cleaned copy gets.
        subject: The list whose entries have it; "" for the file or config as a whole.
        key: Whose value in the entry is wrong; "" if it is not one value.
    """

    name: str
    severity: str
    stops: bool
    what: str
    training: str
    cleaned: str
    subject: str
    key: str


def _read_kinds() -> dict[str, Kind]:
    text = Path(__file__).with_name("kinds.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    kinds = {}
    for first, second in zip(lines[::2], lines[1::2], strict=True):
        where, name, severity, what = first.split(" | ")
        training, cleaned = second.strip().split(" | ")
        subject, _, key = where.partition(".")
        stops = severity == "stops"
        severity = "error" if stops else severity
        subject = subject if subject in LISTS else ""
        kinds[name] = Kind(name, severity, stops, what, training, cleaned, subject, key)
    return kinds


KINDS = _read_kinds()


def check_kind_names(names: Iterable[str]) -> None:
    """Refuse names that are not kinds.

    Raises:
        ValueError: names the unknown ones and those that exist.
    """
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        raise ValueError(f"Unknown kind {', '.join(unknown)}; known are {', '.join(KINDS)}.")
