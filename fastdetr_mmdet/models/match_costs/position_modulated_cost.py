"""Class cost weighted by the fit of the box (Stable-DINO)."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.task_modules.assigners.match_cost import FocalLossCost
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor


@TASK_UTILS.register_module()
class PositionModulatedFocalCost(FocalLossCost):
    """mmdet's ``FocalLossCost`` of a score that is lowered where the box does not fit.

    Paper: Stable-DINO, Liu et al. 2023, arXiv 2304.04742, position-modulated cost: the cost of
    score ``p * ((GIoU + 1) / 2) ** power`` instead of p.

    Args:
        power: Exponent, at least 0; 0 is mmdet's cost.
        alpha: Weight of objects.
        gamma: Exponent of the modulating factor.
        eps: Added before logarithms.
        weight: Factor of the cost.

    Raises:
        ValueError: if power is negative.
    """

    def __init__(
        self,
        power: float = 0.5,
        alpha: float = 0.25,
        gamma: float = 2.0,
        eps: float = 1e-12,
        weight: float = 1.0,
    ) -> None:
        super().__init__(alpha, gamma, eps, weight=weight)
        if power < 0:
            raise ValueError(f"PositionModulatedFocalCost: power={power} must be at least 0.")
        self.power = power

    def modulate(self, scores: Tensor, giou: Tensor) -> Tensor:
        """Lower scores in [0, 1] by giou in [-1, 1] of the same shape."""
        return scores * ((giou + 1) / 2).clamp(min=0).pow(self.power)

    def __call__(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        img_meta: dict | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Costs of one image, (num_queries, num_objects), with the interface of mmdet's costs.

        Scores are logits, boxes are pixel xyxy; ``img_meta`` is ignored.
        """
        scores = pred_instances.scores.sigmoid()[:, gt_instances.labels]
        giou = bbox_overlaps(pred_instances.bboxes, gt_instances.bboxes, mode="giou")
        column = torch.arange(scores.shape[1], device=scores.device)
        return self._focal_loss_cost(torch.logit(self.modulate(scores, giou)), column)
