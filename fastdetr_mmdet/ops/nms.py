"""Non-maximum suppression of a batch without device synchronisation."""

from __future__ import annotations

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor


def distinct(corners: Tensor, threshold: float) -> Tensor:
    """Mark the boxes that non-maximum suppression keeps.

    Iterates over a matrix of IoUs (Cluster-NMS, arXiv 2005.03572), 10 times. The result equals
    usual NMS unless a chain of boxes, each overlapping the next, is longer than that. Computes
    num_boxes ** 2 IoUs per image.

    Args:
        corners: Boxes, best first.
        threshold: IoU above which a kept box suppresses a later one.

    Shape:
        corners: (bs, num_boxes, 4) (x1, y1, x2, y2)
        returns: (bs, num_boxes) bool
    """
    over = (bbox_overlaps(corners, corners) > threshold).triu(1).to(corners.dtype)
    kept = torch.ones_like(corners[..., 0])
    for _ in range(10):
        kept = ((kept.unsqueeze(1) @ over).squeeze(1) == 0).to(corners.dtype)
    return kept > 0
