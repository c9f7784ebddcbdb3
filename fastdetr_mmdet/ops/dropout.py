"""Dropout that takes less time and memory on the CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .eager import on_plain_cpu

# Values of 16 random bits.
_STEPS = 2**16


class Dropout(nn.Dropout):
    """``torch.nn.Dropout`` with fewer draws and a smaller mask on the CPU.

    torch draws one number per element and keeps a mask of floats. Here each 64-bit draw covers four
    elements, and the draws are the mask. The probability is rounded to a multiple of 2**-16; the
    scale uses the rounded one, so that the mean is kept. ``torch.manual_seed`` makes the mask
    reproducible.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Zero some elements and scale the others, in training mode."""
        threshold = _threshold(x, self.p) if self.training else None
        return super().forward(x) if threshold is None else _Drop.apply(x, threshold)


def drop_and_mix(weights: Tensor, value: Tensor, p: float) -> Tensor:
    """``dropout(weights) @ value`` for non-negative weights, such as a softmax's.

    Keeps only the operands of the product for the gradient. Zeros need no mask: dropped weights and
    exact zeros of a softmax both have zero gradient.
    """
    threshold = _threshold(weights, p)
    if threshold is None:
        return F.dropout(weights, p).to(value.dtype) @ value
    return _RectifyAndDrop.apply(weights, threshold).to(value.dtype) @ value


def _threshold(x: Tensor, p: float) -> int | None:
    """Number of ``_STEPS`` values that drop an element; None to use torch's dropout."""
    threshold = round(p * _STEPS)
    return None if threshold in (0, _STEPS) or not on_plain_cpu(x) else threshold


class ReLUDropout(Dropout):
    """ReLU and dropout in one function that keeps only its result for the gradient.

    Zeros in the result were negative or dropped; both have zero gradient.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Rectify; in training mode zero some elements and scale the others."""
        threshold = _threshold(x, self.p) if self.training else None
        if threshold is None:
            # In place, torch would copy the whole gradient in the backward pass of a view.
            return super().forward(F.relu(x, inplace=not torch.is_grad_enabled()))
        return _RectifyAndDrop.apply(x, threshold)


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: int) -> Tensor:
        bits = _draw(x)
        ctx.save_for_backward(bits)
        ctx.threshold = threshold
        return _zero(x, bits, threshold).mul_(_scale(threshold))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (bits,) = ctx.saved_tensors
        return _zero(grad, bits, ctx.threshold).mul_(_scale(ctx.threshold)), None


class _RectifyAndDrop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: int) -> Tensor:
        ctx.scale = _scale(threshold)
        result = _zero(x, _draw(x), threshold).relu_().mul_(ctx.scale)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (result,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(grad, result, 0).mul_(ctx.scale), None


def _draw(x: Tensor) -> Tensor:
    """16 random bits for every element, as int16."""
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64)
    return words.random_(-(2**63), None).view(torch.int16)[: x.numel()].view(x.shape)


def _zero(x: Tensor, bits: Tensor, threshold: int) -> Tensor:
    """Copy x, with zeros where the bits are among the ``threshold`` lowest values."""
    lowest = threshold - _STEPS // 2  # int16 begins at -2**15
    if x.dtype == torch.float32:  # vectorised, unlike comparing and filling
        return torch.ops.aten.threshold_backward(x, bits.to(x.dtype), lowest - 1)
    return x.masked_fill(bits < lowest, 0.0)


def _scale(threshold: int) -> float:
    return _STEPS / (_STEPS - threshold)
