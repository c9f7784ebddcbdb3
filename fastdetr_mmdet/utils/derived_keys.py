"""Propagate overridden config variables to all values that a config derives from them.

mmengine merges ``--cfg-options data_root=...`` after it has evaluated the config, and a config that
inherits a template sets ``data_root`` after the template has used it. Either way only the variable
changes, not the values computed from it. So this package's configs declare derived values in two
entries:

- ``derived_keys`` maps a dotted key to a template: ``'{data_root}'`` is the variable itself,
  ``'{data_root}/{val_ann}'`` joins paths, ``'{#classes}'`` is the number of entries,
  ``'[{max_epochs*0.8}]'`` a list of rounded shares and ``'{~image_scale}'`` DETR's eleven sizes to
  choose from, whose shortest sides are 60 to 100 % of the scale's. Templates of None give None.
  Keys are skipped while the config lacks their variables.
- ``derived_from`` holds the variables' values that the current entries were computed from, which
  shows whether an inheriting config has changed a variable.

When a variable changes, keys follow if they still have the value derived from the old variable.
Keys that an option or an inheriting config sets itself stay.

Importing this module patches mmengine's Config to do so on construction and after merges; configs
import it by ``custom_imports``. A hook or runner would be too late for tools such as print_config
and browse_dataset, which only read a config and merge options. Configs without ``derived_keys`` do
not change.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import os
import re
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from .cli import UsageError
from .config import flatten

_VARIABLE = re.compile(r"\{([#~]?)(\w+)(?:\*([\d.]+))?\}")


def derive(config: Config, before: Mapping[str, Any]) -> dict[str, Any]:
    """Compute the entries of a config that its variables change.

    Returns:
        Dotted keys and values.
    """
    changes = {}
    for key, template in config.get("derived_keys", {}).items():
        names = _names(template)
        if any(name not in config for name in names):
            continue
        now = {name: config[name] for name in names}
        old = _evaluate(template, {**now, **before})
        new = _evaluate(template, now)
        if not _same(old, new) and _same(_lookup(config, key), old):
            changes[key] = new
    return changes


def _names(templates: str) -> set[str]:
    return {match[2] for match in _VARIABLE.finditer(templates)}


def _evaluate(template: str, values: Mapping[str, Any]) -> Any:
    if template.startswith("["):
        return [_evaluate(part, values) for part in template[1:-1].split(", ")]
    if any(values[name] is None for name in _names(template)):
        return None

    def value_of(variable: re.Match) -> Any:
        how, name, share = variable.groups()
        if how == "~":
            short, long = sorted(values[name])
            return [(round(short * percent / 100), long) for percent in range(60, 101, 4)]
        value = len(values[name]) if how == "#" else values[name]
        return round(value * float(share)) if share else value

    only = _VARIABLE.fullmatch(template)
    if only:
        value = value_of(only)
        # --cfg-options image_scale=320,240 is a list, but mmdet's transforms need a tuple for one
        # size and a list for several
        plain = isinstance(value, list) and not any(isinstance(x, (list, tuple)) for x in value)
        return tuple(value) if plain else value
    text = [_VARIABLE.sub(lambda m: str(value_of(m)), part) for part in template.split("/")]
    # join like datasets join data_root and ann_file
    return os.path.join(*text)


def _lookup(config: Config, key: str) -> Any:
    """Value of a dotted key; the class KeyError if it is missing."""
    value: Any = config
    for part in key.split("."):
        try:
            value = value[int(part)] if isinstance(value, (list, tuple)) else value[part]
        except (KeyError, IndexError, TypeError, ValueError):
            return KeyError
    return value


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, str) and isinstance(second, str):
        return os.path.normpath(first) == os.path.normpath(second)
    # JSON and YAML have no tuples
    first, second = (tuple(x) if isinstance(x, list) else x for x in (first, second))
    return type(first) is type(second) and first == second


def _check_options(config: Config, options: Mapping[str, Any]) -> None:
    """Refuse options whose key neither the config nor the runner has."""
    from mmengine.runner import FlexibleRunner, Runner

    known = {*config, *_READ}
    for runner in (Runner, FlexibleRunner):
        known |= {*inspect.signature(runner.__init__).parameters}
    known -= set(KEY_OF) - _names(" ".join(config.derived_keys.values()))
    for key in options:
        first = key.split(".")[0]
        if first in known:
            continue
        leaves = [name for name in flatten(config) if name.split(".")[-1] == first]
        leaves = [name for name in leaves if name.startswith(_LIKELY)]
        close = difflib.get_close_matches(first, known, 1)
        right = [KEY_OF.get(first, ""), *sorted(leaves, key=len), *close]
        meant = next((name for name in right if name.split(".")[0] in known), None)
        hint = f"did you mean {key.replace(first, meant, 1)}=...?" if meant else "see the config."
        raise UsageError(f"--cfg-options: there is no config key {key!r}; {hint}")


# Keys that tools and mmengine read besides the runner's arguments.
_READ = ("auto_scale_lr", "compile", "custom_imports", "runner_type", "tta_model", "tta_pipeline",
         "find_unused_parameters", "model_wrapper_cfg", "vis_backends", "derived_from",
         "derived_keys")  # fmt: skip
_LIKELY = ("optim_wrapper", "train_dataloader", "train_cfg", "model.")
# Common names -> this package's keys, for suggestions.
KEY_OF = {"epochs": "max_epochs", "num_epochs": "max_epochs", "weights": "load_from",
          "imgsz": "image_scale", "img_scale": "image_scale", "image_size": "image_scale",
          "learning_rate": "optim_wrapper.optimizer.lr", "lr": "optim_wrapper.optimizer.lr",
          "batch": "train_dataloader.batch_size", "batch_size": "train_dataloader.batch_size",
          "workers": "train_dataloader.num_workers", "seed": "randomness.seed",
          "num_classes": "classes"}  # fmt: skip


def _tuple_of(classes: Any) -> tuple[str, ...] | None:
    """Turn classes into a tuple of strings; a single class needs no comma."""
    if classes is None:
        return None
    return tuple(map(str, classes if isinstance(classes, (list, tuple)) else [classes]))


_init, _merge = Config.__init__, Config.merge_from_dict


@functools.wraps(_init)
def _init_and_derive(self: Config, *args: Any, **kwargs: Any) -> None:
    _init(self, *args, **kwargs)
    if "derived_keys" in self and "classes" in self:
        self.classes = _tuple_of(self.classes)
    changes = derive(self, self.get("derived_from", {}))
    if changes:
        _merge(self, changes)


@functools.wraps(_merge)
def _merge_and_derive(self: Config, options: dict, *args: Any, **kwargs: Any) -> None:
    templates = " ".join(self.get("derived_keys", {}).values())
    if templates:
        _check_options(self, options)
        if "classes" in options:
            options = {**options, "classes": _tuple_of(options["classes"])}
    before = {name: self[name] for name in _names(templates) if name in self}
    _merge(self, options, *args, **kwargs)
    changes = derive(self, before)
    if changes:
        _merge(self, changes)
        _merge(self, options, *args, **kwargs)  # keys set by options have precedence


Config.__init__, Config.merge_from_dict = _init_and_derive, _merge_and_derive
