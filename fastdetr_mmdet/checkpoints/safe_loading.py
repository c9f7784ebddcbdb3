"""Checkpoints are read as plain data: no code that a file holds is run."""

from __future__ import annotations

import functools
import importlib
import os
import pickle
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from packaging.version import Version


def allow_mmengine_checkpoints() -> None:
    """Let torch >= 2.6 load the checkpoints that mmengine's runner writes.

    torch.load refuses by default every class that it does not know (weights_only=True), and a
    runner's checkpoint holds, beside tensors, the curves of its message hub. Without this call
    `mim test`, tools/test.py and --resume fail under mmengine 0.10.7.

    For this process it permits, and nothing else: mmengine's HistoryBuffer; the rebuilding of numpy
    arrays, scalars and dtypes of plain numbers; and, in the place of `getattr`, which the pickle of
    a HistoryBuffer calls, a function that hands out only HistoryBuffer's public methods. (Allowing
    the real `getattr`, the usual advice, lets a hostile file reach into every allowed class.)
    """
    import torch

    if Version(torch.__version__).release < (2, 6):
        return  # there torch.load still loads everything by default
    import numpy as np
    from mmengine.logging import HistoryBuffer

    numpy_2 = Version(np.__version__).release >= (2,)
    multiarray = importlib.import_module(f"numpy.{'_core' if numpy_2 else 'core'}.multiarray")
    plain = [HistoryBuffer, np.ndarray, np.dtype]
    plain += [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "uint32")]
    # As pairs with the name a file uses, also where torch could tell the name itself: the list is a
    # set for the whole process, and onedl-mmengine strikes its own entries out after each load.
    allowed: list[Any] = [(entry, f"{entry.__module__}.{entry.__qualname__}") for entry in plain]
    allowed.append((_history_buffer_method, "builtins.getattr"))
    for function in ("_reconstruct", "scalar"):
        for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # numpy 1 and numpy 2
            allowed.append((getattr(multiarray, function), f"{module}.{function}"))
    torch.serialization.add_safe_globals(allowed)


def _history_buffer_method(owner: object, name: str) -> Any:
    """Stand in for getattr while a checkpoint is read."""
    from mmengine.logging import HistoryBuffer

    if owner is HistoryBuffer and isinstance(name, str) and not name.startswith("_"):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(
        f"It asks for the attribute {name!r} of {owner!r}, which checkpoints of mmengine never do"
    )


class CheckpointRefusedError(ValueError):
    """A checkpoint that asks for code to be run, which it was not."""


# The configs that came in with checkpoints, which nobody has vouched for
_foreign_configs: set[str] = set()


def guard_checkpoints() -> None:
    """Make mmengine read every checkpoint without running code of its; once, however often called.

    All of load_from, --resume, `mim test`, init_detector, DetInferencer and `Pretrained` weights,
    from a file or an address, go through ``CheckpointLoader.load_checkpoint``. While it runs, torch
    reads nothing but data, whatever it is asked for: onedl-mmengine would otherwise load a file
    without any guard as soon as the guarded way has failed, and both mmengines do so with every
    file from an address. Besides, a config in a checkpoint, which is a Python program, is run only
    if it is plain data and names nothing but registered parts.

    Below torch 2.6 there is no safe way (CVE-2025-32434), so nothing is changed but a warning.
    """
    from mmengine.config import Config
    from mmengine.runner import checkpoint as loaders

    load = loaders.CheckpointLoader.load_checkpoint.__func__
    if getattr(load, "reads_data_only", False):
        return

    @functools.wraps(load)
    def load_checkpoint(cls: type, filename: Any, *args: Any, **kwargs: Any) -> Any:
        if not _reads_safely():
            return load(cls, filename, *args, **kwargs)
        try:
            with _data_only():
                content = load(cls, filename, *args, **kwargs)
        except (pickle.UnpicklingError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "weights_only=True" not in str(error):
                raise  # no refusal: a damaged file, or a device that is not there
            raise CheckpointRefusedError(_explain(filename, error)) from error
        _foreign_configs.update(_configs_of(content))
        return content

    load_checkpoint.reads_data_only = True  # type: ignore[attr-defined]
    loaders.CheckpointLoader.load_checkpoint = classmethod(load_checkpoint)

    if hasattr(loaders, "_safe_torch_load"):  # onedl's, which allows all of `getattr`
        loaders._safe_torch_load = _load_data

    parse = Config.fromstring

    @functools.wraps(parse)
    def fromstring(cfg_str: str, *args: Any, **kwargs: Any) -> Config:
        if cfg_str in _foreign_configs:
            from .embedded_config import check_config

            check_config(cfg_str)
        return parse(cfg_str, *args, **kwargs)

    Config.fromstring = staticmethod(fromstring)


def _reads_safely() -> bool:
    import torch

    safe = Version(torch.__version__).release >= (2, 6)
    if not safe:
        warnings.warn(
            f"torch {torch.__version__} runs what a checkpoint asks for while it reads it: load "
            "only files of people you trust, or update to torch 2.6 or later.",
            stacklevel=3,
        )
    return safe


def _load_data(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
    """Stand in for onedl-mmengine's loader, without its second try."""
    import torch

    return torch.load(file, map_location=map_location, weights_only=True)


@contextmanager
def _data_only() -> Iterator[None]:
    """Within it torch.load runs no code, even if it is told to."""
    force, allow = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    before = {name: os.environ.pop(name, None) for name in (force, allow)}
    os.environ[force] = "1"
    try:
        yield
    finally:
        del os.environ[force]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _explain(filename: Any, error: Exception) -> str:
    """A sentence; torch's own message advises to load the file unguarded."""
    text = str(error).split("WeightsUnpickler error:")[-1].strip()
    asked = re.search(r"GLOBAL ([\w.]+)", text)
    reason = re.split(r"\.\s|\n", text)[0].rstrip(".")
    why = (
        f"reading it would run {asked[1]}, which weights never need"
        if asked
        else f"it is not the plain data that weights are ({reason})"
    )
    return (
        f"{filename} was refused: {why}, so the reading was stopped before that, and nothing of "
        "it was run. Get the file from its authors; if they made it this way and you trust them, "
        "save only its state dict: torch.save(torch.load(path, weights_only=False)['state_dict'], "
        "new_path). More: docs/security.md."
    )


def _configs_of(content: Any) -> Iterator[str]:
    """The configs that mmengine may run: of its inferencers, and of --resume."""
    for path in (("message_hub", "runtime_info", "cfg"), ("meta", "cfg"), ("meta", "config")):
        value = content
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str):
            yield value
