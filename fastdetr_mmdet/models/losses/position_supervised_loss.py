"""Position-supervised loss of Stable-DINO."""

from __future__ import annotations

import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from .quality_loss import QualityLoss


@MODELS.register_module()
class PositionSupervisedLoss(QualityLoss):
    """Focal loss whose target is the quality of the box, relative to the best of the image.

    Paper: Stable-DINO, Liu et al. 2023, arXiv 2304.04742, position-supervised loss: with score p
    and quality q the target is ``t = q**2``, divided by the largest t of the image and layer. An
    object's entry costs ``alpha |t - p|**gamma`` times the cross-entropy of p with t, any other
    entry ``-(1 - alpha) p**gamma log(1 - p)``.

    Args:
        alpha: Weight of objects, in [0, 1].
        gamma: Exponent of the modulating factor, at least 0.
        loss_weight: Factor of the loss; the paper has 6.

    Raises:
        ValueError: if alpha or gamma is out of its range.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, loss_weight: float = 6.0) -> None:
        super().__init__(loss_weight)
        self.set_focus(alpha, gamma)

    def background(self, logits: Tensor, query_index: Tensor, quality: Tensor) -> Tensor:
        """See ``QualityLoss``."""
        return (1 - self.alpha) * logits.sigmoid().pow(self.gamma) * F.softplus(logits)

    def target(self, logits: Tensor, quality: Tensor, image: Tensor, num_images: int) -> Tensor:
        """See ``QualityLoss``."""
        target = quality.square()
        best = target.new_zeros(num_images).scatter_reduce(0, image, target, "amax")
        return target / best[image].clamp(min=1e-12)

    def objects(self, logits: Tensor, target: Tensor) -> Tensor:
        """See ``QualityLoss``."""
        factor = (target - logits.sigmoid()).abs().pow(self.gamma)
        return self.alpha * factor * super().objects(logits, target)
