"""Official state dicts -> ours; one rename table per method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from . import conditional_detr, deformable_detr, sam_detr, smca_detr
from .rename import Renames, rename


@dataclass(frozen=True)
class Method:
    """How the state dict of one official code becomes ours."""

    renames: Renames
    tidy: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict


METHODS = {
    "conditional_detr": Method(conditional_detr.RENAMES),
    "deformable_detr": Method(deformable_detr.RENAMES, deformable_detr.tidy),
    "sam_detr": Method(sam_detr.RENAMES, sam_detr.tidy),
    "smca_detr": Method(smca_detr.RENAMES),
}


def convert_state_dict(state_dict: Mapping[str, Tensor], method: str) -> dict[str, Tensor]:
    """Rename the official code's parameters to those of the matching config's model.

    Args:
        state_dict: The official model's ``state_dict()`` (a checkpoint's ``['model']``).
        method: One of ``METHODS``.

    Returns:
        A dict that loads with ``strict=True``; tensors are those given, or views of them.

    Raises:
        ValueError: for an unknown method, and for keys that the method's model does not have (all
            of them named, nothing converted).
    """
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}; choose one of {', '.join(sorted(METHODS))}.")
    tidied = METHODS[method].tidy(state_dict)
    converted, unknown = rename(tidied, METHODS[method].renames)
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(state_dict)} keys are not of an official {method} model: "
            f"{', '.join(unknown[:5])}{', ...' if len(unknown) > 5 else ''}; check the method, and "
            "hand over the checkpoint's 'model' entry, not the whole checkpoint."
        )
    return converted
