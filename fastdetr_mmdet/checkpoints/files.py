"""Read untrusted checkpoints and write converted ones."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import CheckpointLoader
from torch import Tensor

from ..utils.files import write_atomically
from .integrity import what_is_broken
from .safe_loading import CheckpointError, load_plain


@dataclass(frozen=True)
class Source:
    """Contents of a checkpoint file."""

    weights: dict[str, Tensor]  # without the prefix of DistributedDataParallel
    meta: Mapping[str, Any] = field(default_factory=dict)  # mmengine's
    arguments: Mapping[str, Any] = field(default_factory=dict)  # an official code's command line


def read_checkpoint(path: Path) -> Source:
    """Read weights without running code from the file.

    It is a file of safetensors, or of ``torch.save``: an official checkpoint (weights in 'model'),
    one of mmengine's (in 'state_dict'), or a state dict by itself.

    Raises:
        CheckpointError: if the file is none of these, is damaged, or would run code.
    """
    # official checkpoints hold the command line's arguments
    safe_globals = getattr(torch.serialization, "safe_globals", None)  # torch >= 2.5
    allowed = safe_globals([argparse.Namespace]) if safe_globals else contextlib.nullcontext()
    with allowed:
        if path.is_file() and _is_safetensors(path):
            content: Any = _read_safetensors(path)
        else:
            content = _read(str(path), lambda: load_plain(path, map_location="cpu"))
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a checkpoint's dict.")
    found = (content.get(name) for name in ("model", "state_dict"))
    weights = next((entry for entry in found if isinstance(entry, Mapping)), content)
    if not weights or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in weights.items()
    ):
        entries = ", ".join(map(str, list(content)[:8])) or "none"
        raise CheckpointError(
            f"{path} holds no weights: neither its entry 'model' nor 'state_dict' nor the file "
            f"itself is a dict of tensors (its entries: {entries})."
        )
    if all(key.startswith("module.") for key in weights):
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
    # a profiler's counters, which the official Deformable DETR code skips too
    weights = {k: v for k, v in weights.items() if not k.endswith(("total_ops", "total_params"))}
    bytes_only = (k for k, v in weights.items() if v.is_floating_point() and v.element_size() == 1)
    if key := next(bytes_only, None):
        raise CheckpointError(
            f"{path} holds {weights[key].dtype}, such as {key}. Give weights of 16 or 32 bits."
        )
    meta, arguments = content.get("meta"), content.get("args")
    return Source(
        weights,
        meta if isinstance(meta, Mapping) else {},
        vars(arguments) if isinstance(arguments, argparse.Namespace) else {},
    )


def read_content(checkpoint: str | Path) -> dict[str, Any]:
    """Read a file or URL with mmengine.

    Raises:
        CheckpointRefusedError: if the checkpoint is not plain data.
        CheckpointError: if the file is not a checkpoint, or is damaged.
    """
    name = str(checkpoint)
    content = _read(name, lambda: CheckpointLoader.load_checkpoint(name, "cpu", logger="silent"))
    if not isinstance(content, dict) or not isinstance(weights_of(content), Mapping):
        raise CheckpointError(f"{name} is not a checkpoint: it holds no dict of weights.")
    return content


def weights_of(content: dict[str, Any]) -> Any:
    """Return the state dict of a loaded checkpoint."""
    return content.get("state_dict", content)


def dataset_meta(meta: Any) -> dict[str, Any]:
    """Classes and palette of a checkpoint's training data, as since mmdet 3.1; {} if unknown."""
    meta = meta if isinstance(meta, Mapping) else {}
    known = meta.get("dataset_meta")
    if isinstance(known, list) and known:  # of a mixed ConcatDataset
        known = known[0]
    if isinstance(known, Mapping):
        return {str(key).lower(): value for key, value in known.items()}
    return {"classes": meta["CLASSES"]} if "CLASSES" in meta else {}  # mmdet before 3.0


def _read(name: str, load: Callable[[], Any]) -> Any:
    """Load a file; errors of torch and mmengine become CheckpointError."""
    if Path(name).is_dir():
        raise CheckpointError(f"{name} is a folder; name the checkpoint in it.")
    try:
        if "://" not in name and (broken := what_is_broken(name, thorough=False)):
            raise CheckpointError(f"{name} {broken}.")
        return load()
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{name} cannot be read: {first_line(error)}.") from error
    except Exception as error:  # a damaged file may fail in any way
        raise CheckpointError(
            f"{name} is not a PyTorch checkpoint, or is damaged ({type(error).__name__}: "
            f"{first_line(error)}). Download it again."
        ) from error


def _is_safetensors(path: Path) -> bool:
    """Whether a file starts like safetensors: the length of its header, then a brace."""
    with open(path, "rb") as file:
        return file.read(9)[8:] == b"{"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read every tensor of a file; the format cannot run code."""
    safetensors = safetensors_torch(path)
    try:
        return safetensors.load(path.read_bytes())  # load_file would keep the file mapped
    except Exception as error:  # errors of safetensors, torch, and unknown types
        raise CheckpointError(
            f"{path} is cut short or damaged: its header does not describe its bytes "
            f"({first_line(error)}). Download it again."
        ) from error


def safetensors_torch(path: Path) -> Any:
    """Import safetensors' functions for torch.

    Raises:
        CheckpointError: if it is not installed.
    """
    try:
        return importlib.import_module("safetensors.torch")
    except ImportError as error:
        raise CheckpointError(f"{path} needs a library: pip install safetensors") from error


def write_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write a checkpoint atomically.

    Raises:
        CheckpointError: if the file cannot be written; an existing file is then unchanged.
    """
    content = io.BytesIO()
    torch.save(checkpoint, content)
    try:
        write_atomically(path, content.getvalue())
    except OSError as error:
        raise CheckpointError(f"{path} could not be written: {first_line(error)}.") from error


def first_line(reason: object) -> str:
    """Return the first line of an error message; torch's are long."""
    text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return next(iter(text.strip().splitlines()), "").rstrip(".")[:200]
