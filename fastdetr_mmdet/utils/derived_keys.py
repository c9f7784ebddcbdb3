"""Let a config variable that is overridden change everything that the config derives from it.

mmengine merges ``--cfg-options data_root=...`` after a config has been evaluated, and a config that
inherits a template sets ``data_root`` after the template has used it. Either way the variable
changes and nothing that was computed from it. A config of ours therefore says what follows from
its variables, in two entries:

- ``derived_keys`` maps a dotted key to a template: ``'{data_root}'`` is the variable itself,
  ``'{data_root}/{val_ann}'`` joins paths, ``'{#classes}'`` is the number of entries,
  ``'[{max_epochs*0.8}]'`` a list of rounded shares and ``'{~image_scale}'`` DETR's eleven sizes
  to choose from, whose shortest sides are 60 to 100 % of the scale's. What is made from None is
  None.
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
    """The entries of a config that its variables ask to change.

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
        # --cfg-options image_scale=320,240 is a list, for which mmdet's transforms want a tuple;
        # several sizes to choose from they want as a list
        plain = isinstance(value, list) and not any(isinstance(x, (list, tuple)) for x in value)
        return tuple(value) if plain else value
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


def _check_options(config: Config, options: Mapping[str, Any]) -> None:
    """Refuse options that would change nothing, because neither config nor runner has the key."""
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
        raise UsageError(f"--cfg-options: no config key is called {key!r}; {hint}")


# What tools and mmengine read of a config besides the runner's arguments
_READ = ("auto_scale_lr", "compile", "custom_imports", "runner_type", "tta_model", "tta_pipeline",
         "find_unused_parameters", "model_wrapper_cfg", "vis_backends", "derived_from",
         "derived_keys")  # fmt: skip
_LIKELY = ("optim_wrapper", "train_dataloader", "train_cfg", "model.")
# What people call things that have another name here, where no key ends in that word
KEY_OF = {"epochs": "max_epochs", "num_epochs": "max_epochs", "weights": "load_from",
          "imgsz": "image_scale", "img_scale": "image_scale", "image_size": "image_scale",
          "learning_rate": "optim_wrapper.optimizer.lr", "lr": "optim_wrapper.optimizer.lr",
          "batch": "train_dataloader.batch_size", "batch_size": "train_dataloader.batch_size",
          "workers": "train_dataloader.num_workers", "seed": "randomness.seed",
          "num_classes": "classes"}  # fmt: skip


def _with_tuple_of_classes(values: dict[str, Any]) -> dict[str, Any]:
    """One class needs no comma, and a class may be called 1."""
    classes = values.get("classes")
    if classes is None or (
        isinstance(classes, tuple) and all(isinstance(name, str) for name in classes)
    ):
        return values
    names = classes if isinstance(classes, (list, tuple)) else [classes]
    return {**values, "classes": tuple(map(str, names))}


_init, _merge = Config.__init__, Config.merge_from_dict


@functools.wraps(_init)
def _init_and_derive(self: Config, *args: Any, **kwargs: Any) -> None:
    _init(self, *args, **kwargs)
    if "derived_keys" in self and "classes" in self:
        self.classes = _with_tuple_of_classes({"classes": self.classes})["classes"]
    changes = derive(self, self.get("derived_from", {}))
    if changes:
        _merge(self, changes)


@functools.wraps(_merge)
def _merge_and_derive(self: Config, options: dict, *args: Any, **kwargs: Any) -> None:
    templates = " ".join(self.get("derived_keys", {}).values())
    if templates:
        _check_options(self, options)
        options = _with_tuple_of_classes(options)
    before = {name: self[name] for name in _names(templates) if name in self}
    _merge(self, options, *args, **kwargs)
    changes = derive(self, before)
    if changes:
        _merge(self, changes)
        _merge(self, options, *args, **kwargs)  # what they set themselves comes last


Config.__init__, Config.merge_from_dict = _init_and_derive, _merge_and_derive
