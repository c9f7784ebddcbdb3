"""Reading of checkpoints that nobody vouches for, and writing of ours."""

from __future__ import annotations

import argparse
import contextlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..utils.cli import refuse_to_overwrite
from ..utils.files import write_atomically
from .safe_loading import CheckpointError, load_plain

# How a file begins that is not a checkpoint, but often takes the place of one
_OTHERS = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"<": "a web page, which a download that needs a confirmation leaves behind",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"version https://git-lfs": "a pointer to a file that Git LFS has not fetched",
}
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # torch >= 1.6, and before


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
            content = load_plain(path, map_location="cpu")
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file may fail in any way
        raise CheckpointError(
            f"{path} cannot be read: it is damaged, cut off or not a PyTorch checkpoint "
            f"({first_line(error) or type(error).__name__}). Download it again."
        ) from error
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
    meta, arguments = content.get("meta"), content.get("args")
    return Source(
        weights,
        meta if isinstance(meta, Mapping) else {},
        vars(arguments) if isinstance(arguments, argparse.Namespace) else {},
    )


def write_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write a checkpoint as a whole or not at all.

    Raises:
        CheckpointError: if it cannot be written; an earlier file of the name is then unchanged.
    """
    content = io.BytesIO()
    torch.save(checkpoint, content)
    try:
        write_atomically(path, content.getvalue())
    except OSError as error:
        raise CheckpointError(f"{path} could not be written: {first_line(error)}.") from error


def check_destination(path: Path, source: Path) -> None:
    """Raise UserError if nothing can or should be written there."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; name the file to write in it.")
    if not path.parent.is_dir():
        raise CheckpointError(f"{path} cannot be written: make the folder {path.parent} first.")
    refuse_to_overwrite([path], [source])


def check_file(path: Path) -> None:
    """Raise CheckpointError if a file cannot be a checkpoint, by its beginning, end and parts."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; name the checkpoint in it.")
    try:
        with open(path, "rb") as file:
            head = file.read(32)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {first_line(error)}.") from error
    if not head:
        raise CheckpointError(f"{path} is empty; download it again.")
    if not head.startswith((_ZIP, _PICKLE)):
        what = next((what for start, what in _OTHERS.items() if head.startswith(start)), None)
        raise CheckpointError(
            f"{path} is not a PyTorch checkpoint: "
            f"{f'it is {what}' if what else f'it begins with {head[:8]!r}'}."
        )
    if not head.startswith(_ZIP):
        return
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is cut off: its end is missing; download it again.")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # a damaged file may fail in any way; torch.load will say more
        return
    if any(name.endswith("/constants.pkl") for name in names):  # torch.load's own sign
        raise CheckpointError(
            f"{path} is a TorchScript program, not weights. Get the weights from its authors. If "
            "you trust them, save the program's own with "
            "torch.save(torch.jit.load(path).state_dict(), new_path)."
        )


def first_line(reason: object) -> str:
    """What an error says, briefly; torch explains at length."""
    text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return next(iter(text.strip().splitlines()), "").rstrip(".")[:200]
