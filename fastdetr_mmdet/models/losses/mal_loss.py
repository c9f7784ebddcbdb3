"""Matchability-aware loss of DEIM."""

from __future__ import annotations

import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from .quality_loss import QualityLoss


@MODELS.register_module()
class MALLoss(QualityLoss):
    """Cross-entropy with target quality ** gamma; poor matches keep their full weight.

    Paper: DEIM, Huang et al. 2025, arXiv 2412.04234, matchability-aware loss: with score p and
    quality q an object's entry costs ``-q**gamma log(p) - (1 - q**gamma) log(1 - p)``, any other
    entry ``-p**gamma log(1 - p)``. As in the official code no gradient goes through the weight
    ``p**gamma``. With gamma 0 it is the plain cross-entropy.

    Args:
        gamma: Exponent, at least 0.
        loss_weight: Factor of the loss.
        separate_classes: If True, the other classes of a matched query are weighted by the quality
            of its box, not by ``p**gamma``. Similar classes, both with low scores at first, are
            told apart sooner. This package's idea, not in the paper.

    Raises:
        ValueError: if gamma is negative.
    """

    def __init__(
        self, gamma: float = 1.5, loss_weight: float = 1.0, separate_classes: bool = False
    ) -> None:
        super().__init__(loss_weight)
        if gamma < 0:
            raise ValueError(f"MALLoss: gamma={gamma} must be at least 0.")
        self.gamma = gamma
        self.separate_classes = separate_classes

    def background(self, logits: Tensor, query_index: Tensor, quality: Tensor) -> Tensor:
        """See ``QualityLoss``."""
        weight = logits.detach().sigmoid().pow(self.gamma)
        if self.separate_classes:
            rows = quality.unsqueeze(1).expand(-1, logits.shape[-1])
            weight = weight.flatten(0, 2).index_copy(0, query_index, rows).view_as(weight)
        return weight * F.softplus(logits)

    def target(self, logits: Tensor, quality: Tensor, image: Tensor, num_images: int) -> Tensor:
        """See ``QualityLoss``."""
        return quality.pow(self.gamma)
