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

    Raises:
        ValueError: if gamma is negative.
    """

    def __init__(self, gamma: float = 1.5, loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        if gamma < 0:
            raise ValueError(f"MALLoss: gamma={gamma} must be at least 0.")
        self.gamma = gamma

    def background(self, logits: Tensor) -> Tensor:
        """See ``QualityLoss``."""
        return logits.detach().sigmoid().pow(self.gamma) * F.softplus(logits)

    def target(self, logits: Tensor, quality: Tensor, image: Tensor, num_images: int) -> Tensor:
        """See ``QualityLoss``."""
        return quality.pow(self.gamma)
