"""Columns of a list of JSON objects, safe to compute with whatever the objects hold."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np

# Beyond this a coordinate is a mistake: images have at most 2**20 pixels a side.
LARGEST = 1e7
_INT64 = 2**63
MISSING: Any = object()


def column(entries: Iterable[dict], key: str) -> list:
    """One value of each entry, MISSING where an entry has none."""
    return [entry.get(key, MISSING) for entry in entries]


def types(values: Iterable) -> set[type]:
    """Types of all values; at the speed of C."""
    return set(map(type, values))


def ids(values: list, letters: bool = False) -> list:
    """Ids that can be compared and hashed; None where a value is none.

    Args:
        values: Integers, or floats of whole numbers (which mmdet takes for the same).
        letters: Whether strings pass too, if all are strings.
    """
    found = types(values)
    if found == {int} and -_INT64 <= min(values) and max(values) < _INT64:
        return values
    if found == {str} and letters:
        return values
    return [_whole(value) for value in values]


def references(values: list) -> list:
    """Ids of other entries: integers and strings as they are, None for what is neither."""
    if types(values) <= {int, str}:
        return values
    return [value if type(value) is str else _whole(value) for value in values]


def _whole(value: Any) -> int | None:
    if type(value) is float:
        return int(value) if abs(value) < _INT64 and value == int(value) else None
    return value if type(value) is int and -_INT64 <= value < _INT64 else None


def numbers(values: list) -> np.ndarray:
    """Float64; NaN where a value is no number. Integers too large for a float are infinite."""
    if types(values) <= {int, float}:
        try:
            return np.fromiter(values, np.float64, count=len(values))
        except OverflowError:
            pass
    return np.array([_number(value) for value in values], np.float64)


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        return np.nan
    try:
        return float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf


def boxes(values: list) -> tuple[np.ndarray, np.ndarray]:
    """The four numbers of every box, and which boxes have just these; NaN for the others."""
    if types(values) <= {list} and set(map(len, values)) <= {4}:
        flat = list(chain.from_iterable(values))
        if types(flat) <= {int, float}:
            return numbers(flat).reshape(-1, 4), np.ones(len(values), bool)
    good = np.array([_is_four_numbers(value) for value in values], bool)
    padded = [v if ok else (np.nan,) * 4 for v, ok in zip(values, good.tolist(), strict=True)]
    return numbers(list(chain.from_iterable(padded))).reshape(-1, 4), good


def _is_four_numbers(value: Any) -> bool:
    return type(value) is list and len(value) == 4 and types(value) <= {int, float}


def is_file_name(value: Any) -> bool:
    """Whether a file could have this name."""
    if type(value) is not str or not value or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def shown(value: Any, most: int = 80) -> str:
    """Text from a file, fit for a terminal: no control characters, not too long."""
    try:
        text = str(value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of too many digits
        text = f"a {type(value).__name__}"
    text = text if len(text) <= most else text[: most - 3] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
