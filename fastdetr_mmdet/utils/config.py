"""A config as a flat list of its settings, to be compared with another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config


def flatten(config: Config | Mapping[str, Any]) -> dict[str, str]:
    """Every value as text by its dotted key: ``train_dataloader.batch_size``.

    A list stays whole, unless it holds dicts or lists: then its entries are told apart by index.
    """
    flat: dict[str, str] = {}
    for key, value in config.items():
        _flatten(str(key), value, flat)
    return flat


def _flatten(key: str, value: Any, flat: dict[str, str]) -> None:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            _flatten(f"{key}.{name}", inner, flat)
    elif isinstance(value, (list, tuple)) and any(
        isinstance(inner, (Mapping, list, tuple)) for inner in value
    ):
        for index, inner in enumerate(value):
            _flatten(f"{key}.{index}", inner, flat)
    else:
        # a dump writes tuples as tuples and JSON-like sources as lists: no difference
        flat[key] = repr(list(value) if isinstance(value, tuple) else value)
