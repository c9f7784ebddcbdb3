"""Read checkpoints as plain data: loading through mmengine runs no code from the file."""

from __future__ import annotations

import functools
import importlib
import os
import pickle
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from packaging.version import Version

from ..utils.cli import UserError
from .embedded_config import disarm


class CheckpointError(UserError):
    """A checkpoint that cannot be used; the message lists its problems."""


class CheckpointRefusedError(CheckpointError):
    """A checkpoint that would run code; none of it was run."""


def allow_mmengine_checkpoints() -> None:
    """Let torch >= 2.6 load the checkpoints that mmengine's runner writes.

    By default torch.load refuses unknown classes (weights_only=True), but a runner's checkpoint
    also holds its message hub's history. Without this call `mim test`, tools/test.py and --resume
    fail with mmengine 0.10.7.

    For this process it allows only: mmengine's HistoryBuffer; numpy arrays, scalars and dtypes of
    plain numbers; and, instead of `getattr`, which the pickle of a HistoryBuffer calls, a function
    that returns only HistoryBuffer's public methods. (Allowing the real `getattr`, the usual
    advice, lets a malicious file use every attribute of allowed classes.)
    """
    if not _reads_safely():
        return  # torch.load still loads everything by default
    numpy_2 = Version(np.__version__).release >= (2,)
    multiarray = importlib.import_module(f"numpy.{'_core' if numpy_2 else 'core'}.multiarray")
    plain = [HistoryBuffer, np.ndarray, np.dtype]
    plain += [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "uint32")]
    # Pairs with explicit names, because the list is shared by the process and onedl-mmengine
    # removes its own entries, without names, after each load.
    allowed: list[Any] = [(entry, f"{entry.__module__}.{entry.__qualname__}") for entry in plain]
    allowed.append((_history_buffer_method, "builtins.getattr"))
    for function in ("_reconstruct", "scalar"):
        for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # numpy 1 and numpy 2
            allowed.append((getattr(multiarray, function), f"{module}.{function}"))
    torch.serialization.add_safe_globals(allowed)


def _history_buffer_method(owner: object, name: str) -> Any:
    """Replace getattr while a checkpoint is read."""
    if owner is HistoryBuffer and isinstance(name, str) and not name.startswith("_"):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(
        f"It asks for the attribute {name!r} of {owner!r}, which checkpoints of mmengine never do"
    )


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Replace mmengine's file loader."""
    path = os.path.expanduser(filename)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{filename} can not be found.")
    return read_data(path, map_location)


def read_data(
    file: Any,
    map_location: Any = None,
    weights_only: bool | None = None,
    load: Callable = torch.load,
    **kwargs: Any,
) -> Any:
    """Load plain data; if torch cannot do that safely, warn and load everything.

    Args:
        file: A path, a URL or an open file.
        map_location: As for `load`.
        weights_only: Ignored; for the same arguments as onedl-mmengine's function.
        load: torch's function to use.
        **kwargs: As for `load`.

    Raises:
        CheckpointRefusedError: if the file asks for anything but plain data.
    """
    if _reads_safely():
        content = load_plain(file, load, map_location=map_location, **kwargs)
        disarm(content)
        return content
    warnings.warn(
        f"torch {torch.__version__} may run code in checkpoints while reading them. Load only "
        "files that you trust, or update to torch 2.6 or later.",
        stacklevel=3,
    )
    return load(file, map_location=map_location, **kwargs)


# Replaces torch.utils.model_zoo.load_url.
load_url = functools.partial(read_data, load=torch.hub.load_state_dict_from_url)


def load_plain(file: Any, load: Callable = torch.load, **kwargs: Any) -> Any:
    """Call torch's loader with weights_only=True.

    Raises:
        CheckpointRefusedError: if the file asks for anything but plain data.
    """
    try:
        return load(file, **kwargs, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "weights_only=True" not in str(error):
            raise  # not a refusal: a damaged file or a missing device
        raise CheckpointRefusedError(_explain(file, error)) from error


def _reads_safely() -> bool:
    return Version(torch.__version__).release >= (2, 6)


def _explain(name: Any, error: Exception) -> str:
    """Replace torch's message, which advises loading the file without the guard."""
    text = str(error).split("WeightsUnpickler error:")[-1].strip()
    reason = re.split(r"\.\s|\n", text)[0].rstrip(".")
    why = f"it is not plain data, as weights are ({reason})"
    if asked := re.search(r"GLOBAL ([\w.]+)", text):
        why = f"reading it would run {asked[1]}, which weights never need"
    return (
        f"{name} was refused: {why}. No code was run. Get the file from its authors. If they made "
        "it this way and you trust them, save only its state dict: torch.save(torch.load(path, "
        "weights_only=False)['state_dict'], new_path). More: docs/security.md."
    )
