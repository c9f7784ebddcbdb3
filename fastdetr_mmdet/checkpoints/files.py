"""Reading of checkpoints that nobody vouches for, and writing of ours."""

from __future__ import annotations

import argparse
import contextlib
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..utils.files import would_overwrite

# How a file begins that is not a checkpoint, but often takes the place of one
_OTHERS = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"<": "a web page, which a download that needs a confirmation leaves behind",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"version https://git-lfs": "a pointer to a file that Git LFS has not fetched",
}
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # torch >= 1.6, and before


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says all that is wrong with it."""


@dataclass(frozen=True)
class Source:
    """What a checkpoint file holds.

    Args:
        weights: The state dict, without the prefix of DistributedDataParallel.
        meta: mmengine's notes, if it wrote the file.
        arguments: The command line that an official code was started with, if the file holds it.
    """

    weights: dict[str, Tensor]
    meta: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)


def read_checkpoint(path: Path) -> Source:
    """Read weights without running any code that the file may hold.

    Args:
        path: A file of ``torch.save``: an official checkpoint (weights in 'model'), one of
            mmengine's (in 'state_dict'), or a state dict by itself.

    Raises:
        CheckpointError: if it is none of these, damaged, or asks for code to be run.
    """
    check_file(path)
    # official checkpoints hold the command line's arguments
    safe_globals = getattr(torch.serialization, "safe_globals", None)  # torch >= 2.5
    allowed = safe_globals([argparse.Namespace]) if safe_globals else contextlib.nullcontext()
    try:
        with allowed:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may fail in any way
        raise CheckpointError(_explain(path, error)) from error
    return _unwrap(path, content)


def write_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write a checkpoint as a whole or not at all.

    Raises:
        CheckpointError: if it cannot be written; a file that was there before is then unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(checkpoint, temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path} could not be written: {_first_line(error)}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def check_destination(path: Path, source: Path) -> None:
    """Raise CheckpointError if nothing can or should be written there."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; name the file to write in it.")
    if not path.parent.is_dir():
        raise CheckpointError(f"{path} cannot be written: make the folder {path.parent} first.")
    if would_overwrite([path], [source]):
        raise CheckpointError(f"{path} is the file to convert; name another one to write.")


def check_file(path: Path) -> None:
    """Raise CheckpointError if a file cannot be a checkpoint, by its beginning, end and parts."""
    try:
        with open(path, "rb") as file:
            head = file.read(32)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist.") from error
    except IsADirectoryError as error:
        raise CheckpointError(f"{path} is a folder; name the checkpoint in it.") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {_first_line(error)}.") from error
    if not head:
        raise CheckpointError(f"{path} is empty; download it again.")
    if head.startswith(_ZIP) and not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is cut off: its end is missing; download it again.")
    if not head.startswith((_ZIP, _PICKLE)):
        what = next((what for start, what in _OTHERS.items() if head.startswith(start)), None)
        raise CheckpointError(
            f"{path} is not a PyTorch checkpoint: "
            f"{f'it is {what}' if what else f'it begins with {head[:8]!r}'}."
        )
    if head.startswith(_ZIP) and _is_torchscript(path):
        raise CheckpointError(
            f"{path} is a TorchScript program, not weights: get the weights from its authors; if "
            "you trust them, save the program's own with "
            "torch.save(torch.jit.load(path).state_dict(), new_path)."
        )


def _is_torchscript(path: Path) -> bool:
    """Whether torch.jit.save wrote it, by the same sign as torch.load, which may hand it on."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except Exception:  # a damaged file may fail in any way; torch.load will say more
        return False


def _explain(path: Path, error: Exception) -> str:
    """A sentence; torch's own messages advise to load the file unguarded."""
    text = str(error)
    asked = re.search(r"GLOBAL ([\w.]+)", text)
    if asked and asked[1] == "argparse.Namespace":  # which is harmless, but needs safe_globals
        return f"{path} holds command-line arguments, which only torch >= 2.5 can read safely."
    if "Unsupported operand" in text:
        return (
            f"{path} was refused: it is a pickle that torch.save did not write, or is damaged, and "
            "reading it could run any code, so the reading was stopped. Get the file from its "
            "authors."
        )
    reason = _first_line(text.split("WeightsUnpickler error:")[-1])
    if asked or isinstance(error, pickle.UnpicklingError):
        why = (
            f"reading it would run {asked[1]}, which weights never need"
            if asked
            else f"it is not the plain data that weights are ({reason})"
        )
        return (
            f"{path} was refused: {why}, so the reading was stopped before that. Get the file from "
            "its authors; if they made it this way and you trust them, load it with "
            "torch.load(path, weights_only=False), save only its state dict with torch.save, and "
            "convert that."
        )
    return (
        f"{path} cannot be read: it is damaged, cut off or no PyTorch checkpoint "
        f"({reason or type(error).__name__}). Download it again."
    )


def _unwrap(path: Path, content: Any) -> Source:
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, not a checkpoint, which is a dict."
        )
    weights = content
    for name in ("model", "state_dict"):
        if isinstance(content.get(name), Mapping):
            weights = content[name]
            break
    tensors = {
        key: value
        for key, value in weights.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    if not tensors or len(tensors) < len(weights):
        entries = ", ".join(map(str, list(content)[:8])) or "none"
        raise CheckpointError(
            f"{path} holds no weights: neither its entry 'model' nor 'state_dict' nor the file "
            f"itself is a dict of tensors (its entries: {entries})."
        )
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    # counters of a profiler, which the official Deformable DETR code passes over too
    tensors = {k: v for k, v in tensors.items() if not k.endswith(("total_ops", "total_params"))}
    meta, arguments = content.get("meta"), content.get("args")
    return Source(
        tensors,
        meta if isinstance(meta, Mapping) else {},
        vars(arguments) if isinstance(arguments, argparse.Namespace) else {},
    )


def _first_line(reason: object) -> str:
    """What it says, briefly; torch explains at length."""
    text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return next(iter(text.strip().splitlines()), "").rstrip(".")[:200]
