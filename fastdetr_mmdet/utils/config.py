"""Lets ``--cfg-options data_root=...`` change every place that a config took the value to.

mmengine merges ``--cfg-options`` after a config has been evaluated, so overriding a variable at the
top of a config changes nothing below it. A config that names its ``derived_keys`` is brought up to
date after such a merge; all other configs are left alone.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

_VARIABLE = re.compile(r"\{(#?)(\w+)(?:\*([\d.]+))?\}")


def update_derived_keys(cfg: Config, options: dict[str, Any]) -> dict[str, Any]:
    """What a merge of options into a config has to change besides.

    ``cfg.derived_keys`` maps a dotted key to a template: ``'{data_root}'`` is the variable itself,
    ``'{data_root}/{val_ann}'`` joins paths, ``'{#classes}'`` is the number of entries and
    ``'[{max_epochs*0.8}]'`` a list of one rounded share. What is made from None is None. A key that
    the options set themselves, or that lies within a list they set, is not touched.

    Args:
        cfg: A config with the options merged already.
        options: Dotted keys, as from ``--cfg-options``; values may be nested dicts.

    Returns:
        Dotted keys and values that follow from the changed variables.

    Raises:
        KeyError: if a template names a variable that the config does not have.
    """
    derived = {}
    for key, template in cfg.get("derived_keys", {}).items():
        names = [match[2] for match in _VARIABLE.finditer(template)]
        if any(name in options for name in names) and not _is_set(options, key):
            missing = [name for name in names if name not in cfg]
            if missing:
                raise KeyError(
                    f"derived_keys[{key!r}] uses {missing[0]!r}, which the config does not have."
                )
            derived[key] = _evaluate(cfg, template)
    return derived


def _is_set(options: dict[str, Any], key: str) -> bool:
    for option, value in options.items():
        if option == key:
            return True
        if key.startswith(f"{option}."):
            if not isinstance(value, dict) or _is_set(value, key[len(option) + 1 :]):
                return True
    return False


def _evaluate(cfg: Config, template: str) -> Any:
    if template.startswith("["):
        return [_evaluate(cfg, template[1:-1])]
    only = _VARIABLE.fullmatch(template)
    if only:
        value = _value(cfg, only)
        # --cfg-options image_scale=320,240 is a list, for which mmdet's transforms want a tuple
        return tuple(value) if isinstance(value, list) else value
    if any(_value(cfg, match) is None for match in _VARIABLE.finditer(template)):
        return None
    text = [_VARIABLE.sub(lambda m: str(_value(cfg, m)), part) for part in template.split("/")]
    # as data sets join data_root and ann_file: with one slash, and not at all if absolute
    return os.path.join(*text)


def _value(cfg: Config, variable: re.Match) -> Any:
    count, name, factor = variable.groups()
    value = len(cfg[name]) if count else cfg[name]
    return round(value * float(factor)) if factor else value


def install() -> None:
    """Make ``Config.merge_from_dict`` heed ``derived_keys``; once, however often it is called."""
    merge = Config.merge_from_dict
    if getattr(merge, "heeds_derived_keys", False):
        return

    @functools.wraps(merge)
    def merge_from_dict(self: Config, options: dict, *args: Any, **kwargs: Any) -> None:
        merge(self, options, *args, **kwargs)
        derived = update_derived_keys(self, options)
        if derived:
            merge(self, derived, *args, **kwargs)

    merge_from_dict.heeds_derived_keys = True  # type: ignore[attr-defined]
    Config.merge_from_dict = merge_from_dict


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
