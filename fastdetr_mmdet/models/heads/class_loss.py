"""Which class losses a head without background class can use."""

from __future__ import annotations

import torch
from torch import nn


def check_class_loss(loss: nn.Module, num_classes: int) -> None:
    """Refuse a class loss that cannot be trained with, by trying it on a query of every class.

    Args:
        loss: One of mmdet's, or its kind: (logits, labels, reduction_override='none') -> loss per
            query, or per query and class; ``num_classes`` as label means background.
        num_classes: Classes, without background.

    Raises:
        ValueError: if it takes other targets than class indices, or raises another logit than that
            of an object's class, as no sigmoid loss does.
    """
    # Not under what a caller builds models under, such as torch.device("meta").
    with torch.device("cpu"), torch.inference_mode(False), torch.enable_grad():
        labels = torch.arange(num_classes + 1)  # and background
        logits = torch.linspace(-1, 1, labels.numel() * num_classes).view(-1, num_classes)
        logits.requires_grad_()
        try:
            per_entry = loss(logits, labels, reduction_override="none")
            fits = per_entry.numel() in (labels.numel(), logits.numel())
            per_entry.sum().backward()
            assert logits.grad is not None
            raised = (logits.grad < 0).nonzero()  # (query, class)
            fits = fits and len(raised) > 0 and bool((raised[:, 0] == raised[:, 1]).all())
            error: Exception | None = None
        except Exception as raised_by_loss:  # whatever other targets or classes make it raise
            fits, error = False, raised_by_loss
    if not fits:
        raise ValueError(
            f"bbox_head.loss_cls of type {type(loss).__name__} cannot be used with FastDETRHead, "
            "which has no background class and class indices as targets; use FocalLoss or "
            "CrossEntropyLoss with use_sigmoid=True."
        ) from error
