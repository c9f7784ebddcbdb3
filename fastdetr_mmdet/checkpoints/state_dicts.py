"""Other codes' state dicts -> ours; one rename table per method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from . import conditional_detr, deformable_detr, mmdet_detr, sam_detr, smca_detr
from .rename import Renamed, Renames, rename


def _as_it_is(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    return dict(state_dict), []


@dataclass(frozen=True)
class Method:
    """How the state dict of one code becomes ours.

    Args:
        renames: The table.
        model: Whose model it is, for sentences.
        tidy: What happens to the dict before: the dict, and sentences about what is wrong with it.
    """

    renames: Renames
    model: str
    tidy: Callable[[Mapping[str, Tensor]], tuple[dict[str, Tensor], list[str]]] = _as_it_is


METHODS = {
    "conditional_detr": Method(conditional_detr.RENAMES, "an official conditional_detr model"),
    "deformable_detr": Method(
        deformable_detr.RENAMES, "an official deformable_detr model", deformable_detr.tidy
    ),
    "mmdet": Method(
        mmdet_detr.RENAMES, "mmdet's own Deformable or Conditional DETR", mmdet_detr.tidy
    ),
    "sam_detr": Method(sam_detr.RENAMES, "an official sam_detr model", sam_detr.tidy),
    "smca_detr": Method(smca_detr.RENAMES, "an official smca_detr model"),
}


def convert_state_dict(state_dict: Mapping[str, Tensor], method: str) -> dict[str, Tensor]:
    """Rename another code's parameters to those of the matching config's model.

    Args:
        state_dict: The other model's ``state_dict()`` (an official checkpoint's ``['model']``, the
            ``['state_dict']`` of mmdet's).
        method: One of ``METHODS``.

    Returns:
        A dict that loads with ``strict=True``; tensors are those given, or views of them, and for
        mmdet the zeros that it leaves out. Class branches keep their classes.

    Raises:
        ValueError: for an unknown method, and for keys that the method's model does not have (all
            of them named, nothing converted).
    """
    check_method(method)
    renamed, problems = translate(state_dict, method)
    if problems:
        raise ValueError(" ".join(problems))
    unknown = renamed.unknown
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(state_dict)} keys are not of {METHODS[method].model}: "
            f"{', '.join(unknown[:5])}{', ...' if len(unknown) > 5 else ''}; check the method, and "
            "hand over the checkpoint's 'model' entry, not the whole checkpoint."
        )
    return renamed.weights


def check_method(method: str) -> None:
    """Raise ValueError for a method that has no table."""
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}; choose one of {', '.join(sorted(METHODS))}.")


def translate(state_dict: Mapping[str, Tensor], method: str) -> tuple[Renamed, list[str]]:
    """As ``convert_state_dict``, but what is wrong is handed back.

    Returns:
        The renamed dict with its unknown keys, and sentences about tensors that contradict others.
    """
    tidied, problems = METHODS[method].tidy(state_dict)
    return rename(tidied, METHODS[method].renames), problems
