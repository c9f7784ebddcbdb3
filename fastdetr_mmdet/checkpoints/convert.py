"""Official state dicts -> ours; one rename table per method."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from . import conditional_detr

METHODS = {"conditional_detr": conditional_detr.RENAMES}


def convert_state_dict(state_dict: Mapping[str, Tensor], method: str) -> dict[str, Tensor]:
    """Rename the official code's parameters to those of the matching config's model.

    Args:
        state_dict: The official model's ``state_dict()`` (a checkpoint's ``['model']``).
        method: One of ``METHODS``.

    Returns:
        A dict that loads with ``strict=True``; tensors are those given, not copies.

    Raises:
        ValueError: for an unknown method, and for keys that the method's model does not have (all
            of them named, nothing converted).
    """
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}; choose one of {', '.join(sorted(METHODS))}.")
    converted, unknown = {}, []
    for key, tensor in state_dict.items():
        for pattern, replacement in METHODS[method]:
            renamed, hits = re.subn(pattern, replacement, key)
            if hits:
                converted[renamed] = tensor
                break
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(state_dict)} keys are not of an official {method} model: "
            f"{', '.join(unknown[:5])}{', ...' if len(unknown) > 5 else ''}; check the method, and "
            "hand over the checkpoint's 'model' entry, not the whole checkpoint."
        )
    return converted
