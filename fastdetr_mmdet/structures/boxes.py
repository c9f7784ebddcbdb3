"""Box formats and the logit space in which references are refined."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Cast to the precision that coordinates and costs need: float32, or float64 if x has it."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) centre and size -> (..., 4) corners (x1, y1, x2, y2)."""
    centre, size = boxes.split(2, dim=-1)
    return torch.cat([centre - 0.5 * size, centre + 0.5 * size], dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """(..., 4) corners (x1, y1, x2, y2) -> (..., 4) centre and size."""
    top_left, bottom_right = boxes.split(2, dim=-1)
    return torch.cat([(top_left + bottom_right) / 2, bottom_right - top_left], dim=-1)


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Logit of a probability, clamped to [eps, 1 - eps] as in all official codes.

    Computed in float32 at least: at half precision 1 - eps is 1.
    """
    x = at_least_float32(x).clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def add_reference(delta: Tensor, reference_logits: Tensor | None) -> Tensor:
    """Box logits from a box branch's output, relative to a reference, in float32 at least.

    Shape:
        delta: (..., 4)
        reference_logits: (..., 2 or 4) before the sigmoid, or None; two coordinates move the
            centre only.
        returns: (..., 4), (cx, cy, w, h) before the sigmoid.
    """
    delta = at_least_float32(delta)
    if reference_logits is None:
        return delta
    missing = delta.shape[-1] - reference_logits.shape[-1]
    return delta + torch.nn.functional.pad(reference_logits, (0, missing))
