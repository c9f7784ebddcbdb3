"""What differs between the configs of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..utils.config import flatten

MISSING = "—"
_LONGEST = 160  # characters of a value
# Where a run's files are, and templates whose values are compared anyway
_IGNORED = ("work_dir", "derived_keys")


def config_differences(
    configs: Sequence[Mapping[str, Any]],
) -> list[tuple[list[str], list[str]]]:
    """What differs, and nothing else.

    Returns:
        (keys, values): one value per config, ``MISSING`` where a config has no such key. Keys that
        end alike and have the same values in every config, such as a variable and the places it
        goes to, share an entry.
    """
    flats = [
        flatten({key: value for key, value in config.items() if key not in _IGNORED})
        for config in configs
    ]
    keys = list(dict.fromkeys(key for flat in flats for key in flat))
    rows: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for key in keys:
        values = tuple(flat.get(key, MISSING) for flat in flats)
        if len(set(values)) > 1:
            rows.setdefault((key.rpartition(".")[2], values), []).append(key)
    return [(names, list(map(_short, values))) for (_, values), names in rows.items()]


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST else value[: _LONGEST - 1] + "…"
