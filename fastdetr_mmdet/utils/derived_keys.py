"""Let a config variable that is overridden change everything that the config derives from it.

mmengine merges ``--cfg-options data_root=...`` after a config has been evaluated, and a config that
inherits a template sets ``data_root`` after the template has used it. Either way the variable
changes and nothing that was computed from it. A config of ours therefore says what follows from
its variables, in two entries:

- ``derived_keys`` maps a dotted key to a template: ``'{data_root}'`` is the variable itself,
  ``'{data_root}/{val_ann}'`` joins paths, ``'{#classes}'`` is the number of entries and
  ``'[{max_epochs*0.8}]'`` a list of rounded shares. What is made from None is None.
  Keys whose variables the config lacks wait for the file that brings them.
- ``derived_from`` holds the values of the variables that the config's own entries were computed
  from, so that a config which inherits it can be told from the template.

Where a variable has changed, the keys follow that still have the value that the old one gave. What
an option or an inheriting config sets itself stays.

Importing this module makes mmengine's Config do so when a config is built and after a merge; the
configs import it by ``custom_imports``. mmdet's tools read a config and merge the options before
anything of a run exists that could do it: no hook, runner or data set comes early enough for
print_config or browse_dataset. Configs without ``derived_keys`` are left alone.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

_VARIABLE = re.compile(r"\{(#?)(\w+)(?:\*([\d.]+))?\}")


def derive(config: Config, before: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a config that its variables ask to change.

    Args:
        config: With the variables as they are now.
        before: The variables that its entries were computed from.

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
        count, name, share = variable.groups()
        value = len(values[name]) if count else values[name]
        return round(value * float(share)) if share else value

    only = _VARIABLE.fullmatch(template)
    if only:
        value = value_of(only)
        # --cfg-options image_scale=320,240 is a list, for which mmdet's transforms want a tuple
        return tuple(value) if isinstance(value, list) else value
    text = [_VARIABLE.sub(lambda m: str(value_of(m)), part) for part in template.split("/")]
    # as data sets join data_root and ann_file: with one slash, and not at all if absolute
    return os.path.join(*text)


def _lookup(config: Config, key: str) -> Any:
    """The value of a dotted key; KeyError's class where the config does not have it."""
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
    # a dump in JSON or YAML has no tuples
    first, second = (tuple(x) if isinstance(x, list) else x for x in (first, second))
    return type(first) is type(second) and first == second


_init, _merge = Config.__init__, Config.merge_from_dict


@functools.wraps(_init)
def _init_and_derive(self: Config, *args: Any, **kwargs: Any) -> None:
    _init(self, *args, **kwargs)
    changes = derive(self, self.get("derived_from", {}))
    if changes:
        _merge(self, changes)


@functools.wraps(_merge)
def _merge_and_derive(self: Config, options: dict, *args: Any, **kwargs: Any) -> None:
    templates = " ".join(self.get("derived_keys", {}).values())
    before = {name: self[name] for name in _names(templates) if name in self}
    _merge(self, options, *args, **kwargs)
    changes = derive(self, before)
    if changes:
        _merge(self, changes)
        _merge(self, options, *args, **kwargs)  # what they set themselves comes last


Config.__init__, Config.merge_from_dict = _init_and_derive, _merge_and_derive
