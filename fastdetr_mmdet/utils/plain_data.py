"""Write values of any kind so that they can be read without this package."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from .files import write_atomically


def save_plain_data(path: Path, content: dict[str, Any]) -> None:
    """Write plain data and tensors, to be read by ``torch.load(path, weights_only=True)``.

    Batches, data samples and NumPy values are converted to plain types, which torch reads without
    this package; everything else becomes its ``repr``.

    Raises:
        OSError: if the file cannot be written.
    """
    file = io.BytesIO()
    torch.save(_plain(content), file)
    write_atomically(path, file.getvalue())


def _plain(value: Any) -> Any:
    """Convert to dicts, lists, tuples, strings, numbers, None and CPU tensors."""
    match value:
        case None | str() | bool() | int() | float():
            return value
        case Tensor():  # a copy, because torch.save writes a view's whole storage
            return value.detach().cpu().clone()
        case np.generic():
            return value.item()
        case np.ndarray() if value.dtype.kind in "biuf":
            return torch.from_numpy(value.copy())
        case BaseDataElement():  # data samples and instances
            return _plain({"metainfo": dict(value.metainfo_items()), **dict(value.items())})
        case Mapping():
            return {str(key): _plain(inner) for key, inner in value.items()}
        case tuple():
            return tuple(map(_plain, value))
        case Sequence() if not isinstance(value, bytes):
            return list(map(_plain, value))
    tensor = getattr(value, "tensor", None)  # mmdet's box types
    return _plain(tensor) if isinstance(tensor, Tensor) else repr(value)
