"""IoU-aware binary cross-entropy of Align-DETR."""

from __future__ import annotations

import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from .quality_loss import QualityLoss


@MODELS.register_module()
class IABCELoss(QualityLoss):
    """Cross-entropy whose target is a weighted geometric mean of score and quality.

    Paper: Align-DETR, Cai et al. 2023, arXiv 2304.07527, IA-BCE: with score p and quality q the
    target is ``t = max(p**alpha q**(1 - alpha), 0.01)``, without gradient. An object's entry costs
    ``-t log(p) - (1 - t) log(1 - p)``, any other entry ``-p**gamma log(1 - p)``.

    Args:
        alpha: Share of the score in the target, in [0, 1].
        gamma: Exponent of the background's weight, at least 0.
        loss_weight: Factor of the loss.

    Raises:
        ValueError: if alpha or gamma is out of its range.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        self.set_focus(alpha, gamma)

    def background(self, logits: Tensor, query_index: Tensor, quality: Tensor) -> Tensor:
        """See ``QualityLoss``."""
        return logits.sigmoid().pow(self.gamma) * F.softplus(logits)

    def target(self, logits: Tensor, quality: Tensor, image: Tensor, num_images: int) -> Tensor:
        """See ``QualityLoss``."""
        score = logits.detach().sigmoid()
        return (score.pow(self.alpha) * quality.pow(1 - self.alpha)).clamp(min=0.01)
