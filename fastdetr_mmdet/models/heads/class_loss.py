"""Call class losses of heads without a background class, and check that they can be used."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.losses import FocalLoss, QualityFocalLoss, VarifocalLoss
from torch import Tensor, nn

from ...ops.focal import focal_loss_sum
from ..losses import QualityLoss

_SEE_QUALITY = (QualityLoss, QualityFocalLoss, VarifocalLoss)


def sees_quality(loss: nn.Module) -> bool:
    """Whether the loss's target is the IoU of the matched boxes, and not 1."""
    return isinstance(loss, _SEE_QUALITY)


def sum_class_loss(
    loss: Any, logits: Tensor, query_index: Tensor, classes: Tensor, quality: Tensor | None
) -> Tensor:
    """Sum a class loss over each layer; tensors are those of ``QualityLoss.forward``.

    Args:
        loss: A ``QualityLoss``, one of mmdet's sigmoid losses, or a loss with either interface.
        logits, query_index, classes: Predictions and matched pairs.
        quality: IoU of the matched boxes if the loss ``sees_quality``, else None.
    """
    if isinstance(loss, QualityLoss):
        return loss(logits, query_index, classes, quality)
    if type(loss) is FocalLoss and not loss.activated and not logits.is_cuda:
        # mmdet has a fused kernel on CUDA only; on the CPU it is a chain of operations.
        rows = logits.flatten(1, 2)
        total = focal_loss_sum(rows, query_index, classes, loss.alpha, loss.gamma)
        return loss.loss_weight * total
    rows = logits.flatten(0, 2)
    target: Any
    if isinstance(loss, VarifocalLoss):
        target = torch.zeros_like(rows)
        target[query_index, classes] = quality
    else:
        target = query_index.new_full((len(rows),), rows.shape[-1])
        target[query_index] = classes
    if isinstance(loss, QualityFocalLoss):
        assert quality is not None
        target = target, rows.new_zeros(len(rows)).index_copy(0, query_index, quality)
    per_entry = loss(rows, target, reduction_override="none")
    if per_entry.numel() not in (len(rows), rows.numel()):
        raise ValueError(
            "The loss returned neither one value per query nor one per query and class."
        )
    return per_entry.view(len(logits), -1).sum(1)


def check_class_loss(loss: nn.Module, num_classes: int, key: str = "bbox_head.loss_cls") -> None:
    """Refuse a class loss that cannot be used, by calling it on one query per class.

    Args:
        loss: As for ``sum_class_loss``. Losses with mmdet's interface are called with (logits,
            labels, reduction_override='none') and return a loss per query, or per query and class;
            label ``num_classes`` means background.
        num_classes: Classes, without background.
        key: Config key, for the message.

    Raises:
        ValueError: if the loss takes other targets than class indices, or its gradient raises a
            logit other than that of an object's class, which no sigmoid loss does.
    """
    # The caller may build models under torch.device("meta") or without gradients.
    with torch.device("cpu"), torch.inference_mode(False), torch.enable_grad():
        classes = torch.arange(num_classes)
        logits = torch.linspace(-1, 1, (num_classes + 1) * num_classes)  # one query is background
        logits = logits.view(1, 1, -1, num_classes).requires_grad_()
        try:
            sum_class_loss(loss, logits, classes, classes, torch.ones(num_classes)).sum().backward()
            assert logits.grad is not None
            raised = (logits.grad[0, 0] < 0).nonzero()  # (query, class)
            fits = len(raised) > 0 and bool((raised[:, 0] == raised[:, 1]).all())
            error: Exception | None = None
        except Exception as raised_by_loss:  # the loss may raise anything
            fits, error = False, raised_by_loss
    if not fits:
        raise ValueError(
            f"{key} of type {type(loss).__name__} cannot be used with FastDETRHead, whose targets "
            "are class indices without background; use FocalLoss, CrossEntropyLoss with "
            "use_sigmoid=True, QualityFocalLoss, VarifocalLoss, MALLoss, IABCELoss or "
            "PositionSupervisedLoss."
        ) from error
