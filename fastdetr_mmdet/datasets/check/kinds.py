"""Kinds of problems of datasets, with their effect in training and their fix."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .read import LISTS


class Kind(NamedTuple):
    """One kind of problem, as ``kinds.txt`` lists it.

    Args:
        name: Name in ``--allow`` and in the JSON report.
        severity: "error": training fails or learns wrong labels. "warning": usually harmless.
        stops: Whether ``DatasetCheckHook`` stops a run.
        what: The problem of one entry.
        training: What mmdet does without the check.
        cleaned: Fix in a cleaned copy.
        subject: List of the entries; "" for the file or config.
        key: Key of the wrong value; "" if it is not a single value.
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
        subject = subject if subject in LISTS else ""
        stops = severity == "stops"
        severity = "error" if stops else severity
        kinds[name] = Kind(name, severity, stops, what, training, cleaned, subject, key)
    return kinds


KINDS = _read_kinds()
