"""Base of class losses whose target is the quality of the matched box."""

from __future__ import annotations

import torch
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
        background = self.background(logits, query_index, quality).flatten()
        background = background.index_fill(0, entries, 0.0)
        image = torch.div(query_index, num_queries, rounding_mode="floor")
        target = self.target(logits.flatten()[entries], quality, image, num_layers * bs)
        objects = self.objects(logits.flatten()[entries], target)
        layer = torch.div(image, bs, rounding_mode="floor")
        total = background.view(num_layers, -1).sum(1).index_add(0, layer, objects)
        return self.loss_weight * total

    def background(self, logits: Tensor, query_index: Tensor, quality: Tensor) -> Tensor:
        """Cost of every entry as background, like logits; arguments as for ``forward``."""
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
        return nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
