"""Sum of the sigmoid focal loss over many predictions with few objects."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def focal_loss_sum(
    logits: Tensor, objects: Tensor, classes: Tensor, alpha: float, gamma: float
) -> Tensor:
    """Sigmoid focal loss, summed over each layer (Lin et al. 2017, arXiv 1708.02002, Eq. 5).

    One pass computes loss and gradient of all entries as background; then the few entries of
    objects' classes are corrected. No one-hot targets are made.

    Args:
        logits: Predictions of all layers, float32.
        objects: Indices of objects into (num_layers * num_rows); unique.
        classes: Their classes.
        alpha: Weight of objects; 1 - alpha is that of background.
        gamma: Exponent of the modulating factor, at least 0.

    Shape:
        logits: (num_layers, num_rows, num_classes)
        objects, classes: (num_objects,) long
        returns: (num_layers,)
    """
    return _FocalLossSum.apply(logits, objects, classes, alpha, gamma)


class _FocalLossSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, objects: Tensor, classes: Tensor, alpha: float, gamma: float
    ) -> Tensor:
        loss, slope = _as_background(logits, gamma)
        loss, slope = loss.mul_(1 - alpha), slope.mul_(1 - alpha)
        entries = objects * logits.shape[-1] + classes
        wanted, wanted_slope = _as_background(-logits.reshape(-1)[entries], gamma)
        loss.view(-1)[entries] = wanted * alpha
        slope.view(-1)[entries] = wanted_slope * -alpha
        ctx.save_for_backward(slope)
        return loss.flatten(1).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * grad[:, None, None], None, None, None, None


def _as_background(logits: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """p ** gamma * -log(1 - p) with p = sigmoid(logits), and its derivative."""
    p = logits.sigmoid()
    surprise = F.softplus(logits)  # -log(1 - p)
    factor = p.square() if gamma == 2 else p.pow(gamma)
    slope = (1 - p).mul_(surprise).mul_(gamma).add_(p).mul_(factor)
    return surprise.mul_(factor), slope
