"""Checkpoints are read as plain data: loading one through mmengine runs no code of the file."""

from __future__ import annotations

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
from mmengine.runner import checkpoint as loaders
from packaging.version import Version

from ..utils.cli import UserError
from .embedded_config import disarm

# Set to 1 before the import, this leaves mmengine's loaders as they are
UNGUARDED = "FASTDETR_MMDET_UNGUARDED_LOADING"


class CheckpointError(UserError):
    """A checkpoint that cannot be used; the message says all that is wrong with it."""


class CheckpointRefusedError(CheckpointError):
    """A checkpoint that would run code; none of it was run."""


def allow_mmengine_checkpoints() -> None:
    """Let torch >= 2.6 load the checkpoints that mmengine's runner writes.

    torch.load refuses by default every class that it does not know (weights_only=True), and a
    runner's checkpoint holds, beside tensors, the curves of its message hub. Without this call
    `mim test`, tools/test.py and --resume fail under mmengine 0.10.7.

    For this process it permits, and nothing else: mmengine's HistoryBuffer; the rebuilding of numpy
    arrays, scalars and dtypes of plain numbers; and, instead of `getattr`, which the pickle of a
    HistoryBuffer calls, a function that hands out only HistoryBuffer's public methods. (Allowing
    the real `getattr`, the usual advice, lets a hostile file reach into every allowed class.)
    """
    if not _reads_safely():
        return  # there torch.load still loads everything by default
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
    if owner is HistoryBuffer and isinstance(name, str) and not name.startswith("_"):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(
        f"It asks for the attribute {name!r} of {owner!r}, which checkpoints of mmengine never do"
    )


def guard_checkpoints() -> None:
    """Make mmengine read every checkpoint without running code of it.

    load_from, --resume, `mim test`, init_detector, DetInferencer and `Pretrained` weights all read
    through mmengine's loaders. onedl-mmengine's retry without any guard where the guarded way has
    failed, and both mmengines load every file from an address without one. Two of their functions
    are replaced by ours, which ask torch for plain data in the call itself: no state is shared
    between threads. Loaders that somebody else registers are left alone.

    Below torch 2.6 there is no safe way (CVE-2025-32434): there loading warns.
    """
    if os.environ.get(UNGUARDED, "0") not in ("", "0"):
        return
    loaders.CheckpointLoader.register_scheme("", load_from_local, force=True)
    loaders.load_url = load_url  # of http(s)://, torchvision://, openmmlab://, mmcls://
    if hasattr(loaders, "_safe_torch_load"):  # of onedl's other schemes
        loaders._safe_torch_load = read_data


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Stand in for mmengine's loader of files."""
    path = os.path.expanduser(filename)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{filename} can not be found.")
    return read_data(path, map_location)


def load_url(url: str, **kwargs: Any) -> Any:
    """Stand in for torch.utils.model_zoo.load_url."""
    return read_data(url, load=torch.hub.load_state_dict_from_url, **kwargs)


def read_data(
    file: Any, map_location: Any = None, load: Callable = torch.load, **kwargs: Any
) -> Any:
    """torch.load of plain data; where torch cannot do that safely, warn and load everything.

    Args:
        file: A path, an address or an open file.
        map_location: As for torch.load.
        load: torch's function for it.
        **kwargs: As for `load`; weights_only, which onedl-mmengine gives, is ignored.

    Raises:
        CheckpointRefusedError: if the file asks for anything but plain data.
    """
    kwargs.pop("weights_only", None)
    if not _reads_safely():
        warnings.warn(
            f"torch {torch.__version__} runs what a checkpoint asks for while it reads it: load "
            "only files of people you trust, or update to torch 2.6 or later.",
            stacklevel=3,
        )
        return load(file, map_location=map_location, **kwargs)
    content = load_plain(file, load, map_location=map_location, **kwargs)
    disarm(content)
    return content


def load_plain(file: Any, load: Callable = torch.load, **kwargs: Any) -> Any:
    """Call torch's loader with weights_only=True.

    Raises:
        CheckpointRefusedError: if the file asks for anything but plain data.
    """
    try:
        return load(file, **kwargs, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "weights_only=True" not in str(error):
            raise  # not a refusal: a damaged file, or a device that is missing
        raise CheckpointRefusedError(_explain(file, error)) from error


def _reads_safely() -> bool:
    return Version(torch.__version__).release >= (2, 6)


def _explain(name: Any, error: Exception) -> str:
    """torch's own message advises to load the file unguarded."""
    text = str(error).split("WeightsUnpickler error:")[-1].strip()
    asked = re.search(r"GLOBAL ([\w.]+)", text)
    reason = re.split(r"\.\s|\n", text)[0].rstrip(".")
    why = (
        f"reading it would run {asked[1]}, which weights never need"
        if asked
        else f"it is not the plain data that weights are ({reason})"
    )
    return (
        f"{name} was refused: {why}. Nothing of it was run. Get the file from its authors. If they "
        "made it this way and you trust them, save only its state dict: "
        "torch.save(torch.load(path, weights_only=False)['state_dict'], new_path). More: "
        "docs/security.md."
    )
