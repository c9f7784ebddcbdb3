"""Select the best detections from logits and boxes of all queries."""

from __future__ import annotations

import torch
from torch import Tensor

from ...ops.nms import distinct
from ...structures.boxes import at_least_float32, cxcywh_to_xyxy


def top_k(
    cls_scores: Tensor, boxes: Tensor, max_per_img: int, nms_iou: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The best (query, class) pairs of each image.

    Args:
        cls_scores: Logits.
        boxes: Normalised (cx, cy, w, h).
        max_per_img: Number of detections; at most num_queries * num_classes.
        nms_iou: IoU threshold of NMS within each class, among the best 5 * max_per_img: suppressed
            pairs get score 0 and come last; None: no NMS.

    Shape:
        cls_scores: (bs, num_queries, num_classes)
        boxes: (bs, num_queries, 4)
        returns: scores (bs, k) in [0, 1], descending; labels (bs, k) int64; normalised corners
            (x1, y1, x2, y2), (bs, k, 4)
    """
    num_classes = cls_scores.shape[-1]
    scores = at_least_float32(cls_scores).sigmoid().flatten(1)
    count = min(max_per_img, scores.shape[1])
    candidates = count if nms_iou is None else min(5 * max_per_img, scores.shape[1])
    scores, index = scores.topk(candidates, dim=1)
    query = torch.div(index, num_classes, rounding_mode="floor")
    corners = cxcywh_to_xyxy(boxes).gather(1, query.unsqueeze(-1).expand(-1, -1, 4))
    labels = index % num_classes
    if nms_iou is None:
        return scores, labels, corners
    apart = corners.clamp(0, 1) + 2 * labels.unsqueeze(-1)  # move each class's boxes apart
    scores, best = (scores * distinct(apart, nms_iou)).topk(count, dim=1)
    corners = corners.gather(1, best.unsqueeze(-1).expand(-1, -1, 4))
    return scores, labels.gather(1, best), corners
