"""The computation that an exported file holds: from a batch of images to detections."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..models.heads.top_k import top_k
from ..structures import Memory


class DetectionGraph(nn.Module):
    """A ``FastDETR`` as one function of an image batch, without data samples.

    What ``FastDETR.predict`` does, for a batch whose images all fill it: there is no padding, hence
    no mask. Sizes are never read as numbers, so that they may stay symbols while exporting.

    Args:
        detector: In evaluation mode.

    Shape:
        images: (bs, 3, H, W) float32, normalised, channels in the order the detector was trained on
        returns: boxes (bs, k, 4), pixels (x1, y1, x2, y2) of the H x W input, clipped to it; scores
            (bs, k) in [0, 1], descending; labels (bs, k) int64, indices of classes; k is the least
            of test_cfg.max_per_img and num_queries * num_classes.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detect."""
        detector: Any = self.detector
        head = detector.bbox_head
        height, width = images.shape[-2:]
        # (2,): a constant, or, where the size is a symbol, made from the images
        size = torch.stack([_float(width, images), _float(height, images)])
        output = detector.transformer(
            self._memory(images, size), head.box_branches, head.proposal_branches
        )
        cls_scores, boxes = head.last_layer(output)
        scores, labels, corners = top_k(cls_scores, boxes, head.test_cfg.get("max_per_img", 100))
        extent = torch.cat([size, size])
        return torch.minimum((corners * extent).clamp(min=0), extent), scores, labels

    def _memory(self, images: Tensor, size: Tensor) -> Memory:
        detector: Any = self.detector
        bs = images.shape[0]
        features = detector.extract_feat(images)
        positions = []
        for feature in features:
            whole = feature.new_zeros((1, *feature.shape[-2:]), dtype=torch.bool)
            positions.append(detector.positional_encoding(whole).expand(bs, -1, -1, -1))
        return Memory.from_maps(
            features,
            positions,
            valid_ratios=images.new_ones((bs, len(features), 2)),
            image_sizes=size.expand(bs, -1),
        )


def _float(number: int, like: Tensor) -> Tensor:
    """A scalar tensor of a number that may be a symbol."""
    return torch.scalar_tensor(number, dtype=torch.float32, device=like.device)
