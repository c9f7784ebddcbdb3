"""Files of safetensors: a header of JSON that lists the tensors, then their bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .safe_loading import CheckpointError

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def is_safetensors(path: Path) -> bool:
    """Whether a file begins like one: the length of its header, then the header's brace."""
    with open(path, "rb") as file:
        return file.read(9)[8:] == b"{"


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read every tensor of a file; nothing in such a file can be run.

    Raises:
        CheckpointError: if the file is cut short, damaged, or its header does not describe its
            bytes one after another.
    """
    content = memoryview(path.read_bytes())
    begin = 8 + int.from_bytes(content[:8], "little")
    try:
        header = json.loads(bytes(content[8:begin]))
        header.pop("__metadata__", None)
        return dict(_tensors(header, content[begin:]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is cut short or damaged: its header does not describe its bytes "
            f"({type(error).__name__}: {error}). Download it again."
        ) from error


def _tensors(header: dict[str, Any], content: memoryview) -> Iterator[tuple[str, Tensor]]:
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, (first, last) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if not all(type(n) is int and n >= 0 for n in (*shape, first, last)):
            raise ValueError(f"{name!r} has the shape {shape}")
        # each begins where the one before it ends, so none is read twice
        if first != end or last - first != math.prod(shape) * dtype.itemsize or last > len(content):
            raise ValueError(f"{name!r} has the bytes {first} to {last} of {len(content)}")
        end = last
        data = bytearray(content[first:last])  # a copy, and aligned
        flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        yield name, flat.reshape(shape)
    if end != len(content):
        raise ValueError(f"{len(content) - end} bytes are left over")


def as_safetensors(weights: Mapping[str, Tensor]) -> bytes:
    """The content of a file that holds these tensors."""
    names = {dtype: name for name, dtype in _DTYPES.items()}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    parts, end = [], 0
    for name, tensor in weights.items():
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        offsets = [end, end := end + len(data)]
        header[name] = dict(
            dtype=names[tensor.dtype], shape=list(tensor.shape), data_offsets=offsets
        )
        parts.append(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])
