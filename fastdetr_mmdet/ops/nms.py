"""Non-maximum suppression of a batch without device synchronisation."""

from __future__ import annotations

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor


def distinct(corners: Tensor, threshold: float) -> Tensor:
    """Which boxes non-maximum suppression keeps.

    The usual suppression, but by rounds over a matrix (Cluster-NMS, arXiv 2005.03572): it is exact
    where no chain of boxes, each of which decides on the next, is longer than the rounds, of which
    there are 10. Cost: num_boxes ** 2 IoUs per image.

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
