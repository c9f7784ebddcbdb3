"""One-to-many matching by a score of class and box (MS-DETR)."""

from __future__ import annotations

import numpy as np
from mmdet.models.task_modules.assigners.match_cost import IoUCost
from mmdet.registry import TASK_UTILS

from .hungarian_matcher import HungarianMatcher
from .match_costs import ClassScoreCost


@TASK_UTILS.register_module()
class ScoreMatcher(HungarianMatcher):
    """Every query is matched with its best-scoring object, if the score is high enough.

    Paper: MS-DETR, Zhao et al. 2024, arXiv 2401.03989, Sec. 3.2.

    The score is ``iou_weight * IoU + class_weight * p`` with the probability p of the object's
    class. A query is matched if its best score is at least the threshold, or if it is an object's
    best query. Each object keeps its best ``most`` queries. An object may stay unmatched if its
    best query scores another object higher. The official code also drops three quarters of the
    queries at random; this one drops none.

    Args:
        iou_weight: Weight of the IoU.
        class_weight: Weight of the probability.
        threshold: Lowest score of a match.
        most: Maximum number of queries per object.

    Raises:
        ValueError: if most is below 1; in ``match``, as ``HungarianMatcher``.
    """

    def __init__(
        self,
        iou_weight: float = 0.7,
        class_weight: float = 0.3,
        threshold: float = 0.4,
        most: int = 6,
    ) -> None:
        if most < 1:
            raise ValueError(f"ScoreMatcher: most={most} must be at least 1.")
        self.match_costs = [
            IoUCost(iou_mode="iou", weight=iou_weight),
            ClassScoreCost(weight=class_weight),
        ]
        self.threshold, self.most = threshold, most

    def pair(self, costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See ``HungarianMatcher``; a cost is a negative score."""
        if not costs.size:
            return np.arange(0), np.arange(0)
        column, cost = costs.argmin(1), costs.min(1)
        chosen = cost <= -self.threshold
        chosen[costs.argmin(0)] = True
        rows = chosen.nonzero()[0]
        rows = rows[np.lexsort((cost[rows], column[rows]))]  # by object, best first
        rank = np.arange(len(rows)) - np.searchsorted(column[rows], column[rows])
        rows = rows[rank < self.most]
        return rows, column[rows]
