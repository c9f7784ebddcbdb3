"""A file with what is needed to look at a training step again."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement

from ...utils.files import write_atomically


def write_bundle(path: Path, content: dict[str, Any]) -> None:
    """Write plain data and tensors, to be read by ``torch.load(path, weights_only=True)``.

    Args:
        path: Comes into being whole or not at all; its folder is made.
        content: Batches, data samples, NumPy values and the like are turned into what any torch
            reads without this package; of the rest, the text that ``repr`` gives.

    Raises:
        OSError: if it cannot be written.
    """
    file = io.BytesIO()
    torch.save(as_plain_data(content), file)
    write_atomically(path, file.getvalue())


def as_plain_data(value: Any) -> Any:
    """Dicts, lists, tuples, strings, numbers, None and tensors on the CPU."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, torch.Tensor):
        # a copy, because of a view torch.save would write all that it is a view of
        return value.detach().cpu().clone()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(value.copy())
    if isinstance(value, BaseDataElement):  # data samples and instances
        return dict(
            metainfo=as_plain_data(dict(value.metainfo_items())),
            **as_plain_data(dict(value.items())),
        )
    if isinstance(value, Mapping):
        return {str(key): as_plain_data(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(map(as_plain_data, value))
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return list(map(as_plain_data, value))
    if isinstance(getattr(value, "tensor", None), torch.Tensor):  # boxes with a type of their own
        return as_plain_data(value.tensor)
    return repr(value)
