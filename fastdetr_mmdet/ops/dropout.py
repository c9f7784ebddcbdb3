"""Dropout that takes less time and memory on the CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Numbers that 16 random bits tell apart.
_STEPS = 2**16


class Dropout(nn.Dropout):
    """``torch.nn.Dropout`` with fewer draws and a smaller mask on the CPU.

    torch draws a number for every element from a serial generator and keeps the mask as floats.
    Here every 64-bit draw decides four elements, and the mask is a byte each. The probability is
    rounded to a multiple of 2**-16, and the scale belongs to the rounded one, so that the mean
    stays. ``torch.manual_seed`` decides the mask, as always.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Zero some elements and scale the others, in training mode."""
        threshold = self._threshold(x)
        return super().forward(x) if threshold is None else _Drop.apply(x, threshold)

    def _threshold(self, x: Tensor) -> int | None:
        """How many of ``_STEPS`` numbers drop an element; None where torch's own way is right."""
        exported = torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()
        threshold = round(self.p * _STEPS)
        if not self.training or x.device.type != "cpu" or exported or threshold in (0, _STEPS):
            return None
        return threshold


class ReLUDropout(Dropout):
    """ReLU and dropout as one, which keeps nothing for the gradient but its result.

    What is zero in the result was negative or dropped, and either way has no gradient.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Rectify; in training mode zero some elements and scale the others."""
        threshold = self._threshold(x)
        if threshold is None:
            # In place, torch would copy the whole gradient when going back through a view.
            return super().forward(F.relu(x, inplace=not torch.is_grad_enabled()))
        return _RectifyAndDrop.apply(x, threshold)


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: int) -> Tensor:
        dropped = _draw(x, threshold)
        ctx.save_for_backward(dropped)
        ctx.scale = _STEPS / (_STEPS - threshold)
        return torch.mul(x, ctx.scale).masked_fill_(dropped, 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (dropped,) = ctx.saved_tensors
        return torch.mul(grad, ctx.scale).masked_fill_(dropped, 0.0), None


class _RectifyAndDrop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: int) -> Tensor:
        ctx.scale = _STEPS / (_STEPS - threshold)
        result = torch.mul(x, ctx.scale).relu_().masked_fill_(_draw(x, threshold), 0.0)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (result,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(grad, result, 0).mul_(ctx.scale), None


def _draw(x: Tensor, threshold: int) -> Tensor:
    """True where 16 random bits, as a number, are below ``threshold``."""
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64)
    bits = words.random_(-(2**63), None).view(torch.int16)[: x.numel()]
    return (bits < threshold - _STEPS // 2).view(x.shape)
