"""Read configs, and flatten them to compare them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .cli import UsageError


def read_config(path: str | Path, **options: Any) -> Config:
    """mmengine's ``Config.fromfile``, whose errors name the file.

    Raises:
        UsageError: if the file cannot be read as a config.
    """
    try:
        return Config.fromfile(path, **options)
    except Exception as error:  # a config is a program and may fail in any way
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"{path} cannot be read as a config ({reason}).") from error


def flatten(config: Config | Mapping[str, Any]) -> dict[str, str]:
    """Map dotted keys, such as ``train_dataloader.batch_size``, to values as text.

    Lists stay whole, unless they hold dicts or lists; then the index becomes part of the key.
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
        # tuples equal lists, because JSON sources have lists only
        flat[key] = repr(list(value) if isinstance(value, tuple) else value)
