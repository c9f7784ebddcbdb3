"""Class losses whose target is the quality of the matched box, and their base."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn


class QualityLoss(nn.Module):
    """Sigmoid class loss whose target for a matched query is a quality in [0, 1].

    Every entry of the logits counts as background, except the class of a query's object. Subclasses
    define the cost of background entries and, given the quality, of objects' entries.

    Args:
        loss_weight: Factor of the loss.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def set_focus(self, alpha: float, gamma: float) -> None:
        """Set the parameters that focal losses share; ValueError if out of range."""
        if not 0 <= alpha <= 1 or gamma < 0:
            raise ValueError(
                f"{type(self).__name__}: alpha={alpha} must be in [0, 1] and gamma={gamma} at "
                "least 0."
            )
        self.alpha, self.gamma = alpha, gamma

    def forward(
        self, logits: Tensor, query_index: Tensor, classes: Tensor, quality: Tensor
    ) -> Tensor:
        """Compute the loss, summed over each layer.

        Args:
            logits: Predictions of all layers, float32 at least.
            query_index: Matched queries, into (num_layers, bs, num_queries) flattened; unique.
            classes: Classes of the matched objects.
            quality: IoU of the matched boxes, in [0, 1], without gradient.

        Shape:
            logits: (num_layers, bs, num_queries, num_classes)
            query_index, classes: (num_pairs,) long
            quality: (num_pairs,)
            returns: (num_layers,)
        """
        num_layers, bs, num_queries, num_classes = logits.shape
        entries = query_index * num_classes + classes
        background = self.background(logits).flatten().index_fill(0, entries, 0.0)
        image = torch.div(query_index, num_queries, rounding_mode="floor")
        target = self.target(logits.flatten()[entries], quality, image, num_layers * bs)
        objects = self.objects(logits.flatten()[entries], target)
        layer = torch.div(image, bs, rounding_mode="floor")
        total = background.view(num_layers, -1).sum(1).index_add(0, layer, objects)
        return self.loss_weight * total

    def background(self, logits: Tensor) -> Tensor:
        """Cost of every entry as background, in the logits' shape."""
        raise NotImplementedError

    def target(self, logits: Tensor, quality: Tensor, image: Tensor, num_images: int) -> Tensor:
        """Target scores of the objects, in [0, 1], without gradient.

        Shape:
            logits, quality: (num_pairs,)
            image: (num_pairs,) long, index of the image and layer, in [0, num_images)
        """
        raise NotImplementedError

    def objects(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cost of the objects' entries; by default the unweighted cross-entropy with the target.

        Shape:
            logits, target, returns: (num_pairs,)
        """
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


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

    def background(self, logits: Tensor) -> Tensor:
        """See ``QualityLoss``."""
        return logits.sigmoid().pow(self.gamma) * F.softplus(logits)

    def target(self, logits: Tensor, quality: Tensor, image: Tensor, num_images: int) -> Tensor:
        """See ``QualityLoss``."""
        score = logits.detach().sigmoid()
        return (score.pow(self.alpha) * quality.pow(1 - self.alpha)).clamp(min=0.01)


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

    def background(self, logits: Tensor) -> Tensor:
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
