"""What differs between the configs of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MISSING = "—"
_LONGEST = 160  # characters of a value
# Where a run's files are, and templates whose values are compared anyway
_IGNORED = ("work_dir", "derived_keys")


def flatten(config: Mapping[str, Any]) -> dict[str, str]:
    """Every value by its dotted key, lists by index: ``train_dataloader.batch_size``."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if key not in _IGNORED:
            _flatten(str(key), value, flat)
    return flat


def config_differences(
    configs: Sequence[Mapping[str, Any]],
) -> list[tuple[list[str], list[str]]]:
    """What differs, and nothing else.

    Returns:
        (keys, values): one value per config, ``MISSING`` where a config has no such key. Keys that
        end alike and have the same values in every config, such as a variable and the places it
        goes to, share an entry.
    """
    flats = [flatten(config) for config in configs]
    keys = list(dict.fromkeys(key for flat in flats for key in flat))
    rows: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for key in keys:
        values = tuple(flat.get(key, MISSING) for flat in flats)
        if len(set(values)) > 1:
            rows.setdefault((key.rpartition(".")[2], values), []).append(key)
    return [(names, list(values)) for (_, values), names in rows.items()]


def _flatten(key: str, value: Any, flat: dict[str, str]) -> None:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            _flatten(f"{key}.{name}", inner, flat)
    elif isinstance(value, (list, tuple)) and any(isinstance(x, (Mapping, list)) for x in value):
        for index, inner in enumerate(value):
            _flatten(f"{key}.{index}", inner, flat)
    else:
        # a dump writes tuples as tuples and JSON-like sources as lists: no difference
        text = repr(list(value) if isinstance(value, tuple) else value)
        flat[key] = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
