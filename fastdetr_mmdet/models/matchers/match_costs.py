"""Match costs of all decoder layers and all images of a batch, each term in a few operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from mmdet.models.task_modules.assigners.match_cost import (
    BBoxL1Cost,
    CrossEntropyLossCost,
    DiceCost,
    FocalLossCost,
    IoUCost,
)
from mmengine.structures import InstanceData
from torch import Tensor

from ...structures.boxes import at_least_float32, cxcywh_to_xyxy
from ...structures.targets import Targets
from ..match_costs import PositionModulatedFocalCost

# Side, in pixels, of the image to which boxes are scaled for mmdet's own costs, which divide by the
# image's size again. A power of two, so that scaling is exact, and large, because mmdet adds 1e-6
# to areas.
COMMON_SIZE = 2**12
_LEAST_AREA = 1e-6 / COMMON_SIZE**2


@dataclass(frozen=True)
class ClassScoreCost:
    """The negative probability of the object's class, with the interface of mmdet's costs."""

    weight: float

    def __call__(self, pred_instances: Any, gt_instances: Any, img_meta: Any = None) -> Tensor:
        """Costs of one image, (num_queries, num_objects)."""
        return -self.weight * pred_instances.scores.sigmoid()[:, gt_instances.labels]


@dataclass(frozen=True)
class PaddedObjects:
    """Objects with one row per image, padded to equal length with other images' objects.

    Shape:
        labels: (bs, most) long
        boxes: (bs, most, 4) normalised (cx, cy, w, h), float32 at least
    """

    labels: Tensor
    boxes: Tensor

    @classmethod
    def from_targets(cls, targets: Targets, num_classes: int) -> PaddedObjects:
        """Pad ``targets``, which have at least one object; clamp labels that are out of range."""
        counts, most = targets.counts, max(targets.counts)
        labels = targets.labels.clamp(0, num_classes - 1)
        boxes = targets.boxes
        if min(counts) == most:  # no padding: views
            return cls(labels.view(len(counts), most), boxes.view(len(counts), most, 4))
        rows, start = [], 0
        for count in counts:
            rows.append([start + i if i < count else 0 for i in range(most)])
            start += count
        index = torch.tensor(rows).to(labels.device, non_blocking=True)
        return cls(labels[index], boxes[index])


def check_cost(cost: Any) -> None:
    """Raise ValueError if a match cost compares masks, which no head here predicts."""
    if isinstance(cost, (CrossEntropyLossCost, DiceCost)):
        raise ValueError(
            f"HungarianMatcher: match_costs has {type(cost).__name__}, which compares masks, but "
            "this head predicts boxes and classes only; leave it out."
        )


def cost_terms(
    costs: Sequence[Any], cls_scores: Tensor, boxes: Tensor, targets: Targets
) -> list[Tensor]:
    """Every cost of every query with every object of its own image.

    mmdet's focal, L1 and IoU costs and ``PositionModulatedFocalCost`` are computed for the whole
    batch at once, for occurring classes only; other costs are called image by image. A query with
    an infinite logit costs NaN.

    Args:
        costs: Match costs, mmdet's or others with their interface.
        cls_scores, boxes: Predictions of all layers.
        targets: At least one object.

    Shape:
        cls_scores: (num_layers, bs, num_queries, num_classes) logits
        boxes: (num_layers, bs, num_queries, 4) normalised (cx, cy, w, h)
        returns: per cost (num_layers, bs, num_queries, most), float32 at least; most is the largest
            number of objects in an image; columns beyond an image's own objects have no meaning.
    """
    cls_scores, boxes = at_least_float32(cls_scores), at_least_float32(boxes)
    targets = replace(targets, boxes=targets.boxes.to(boxes.dtype))
    objects = PaddedObjects.from_targets(targets, cls_scores.shape[-1])
    # NaN where a logit is not finite; else the cost could be finite and the loss not.
    non_finite = (cls_scores * 0).sum(-1, keepdim=True)
    terms = []
    for cost in costs:
        batched = _BATCHED.get(type(cost))
        by_class = isinstance(cost, FocalLossCost)
        if batched is None or (by_class and cost.binary_input):
            terms.append(_image_by_image(cost, cls_scores + non_finite, boxes, targets))
        else:
            term = batched(cost, cls_scores, boxes, objects) * cost.weight
            terms.append(term + non_finite if by_class else term)
    return terms


def _focal(
    cost: FocalLossCost, cls_scores: Tensor, boxes: Tensor, objects: PaddedObjects
) -> Tensor:
    """Focal loss of the object's class as object minus as background (arXiv 2010.04159, A.3)."""
    scores = _class_scores(cls_scores, objects)
    if isinstance(cost, PositionModulatedFocalCost):
        scores = cost.modulate(scores, -_negative_iou(boxes, objects, "giou"))
    background = 1 - scores
    as_object = (scores + cost.eps).log_().mul_(background.pow(cost.gamma)).mul_(-cost.alpha)
    as_background = (background + cost.eps).log_().mul_(scores.pow_(cost.gamma))
    return as_object.add_(as_background, alpha=1 - cost.alpha)


def _class_scores(cls_scores: Tensor, objects: PaddedObjects) -> Tensor:
    """Probability of each object's class, (num_layers, bs, num_queries, most)."""
    labels = objects.labels[None, :, None].expand(*cls_scores.shape[:3], -1)
    return cls_scores.gather(3, labels).sigmoid_()


def _class_score(cost: Any, cls_scores: Tensor, boxes: Tensor, objects: PaddedObjects) -> Tensor:
    return -_class_scores(cls_scores, objects)


def _l1(cost: Any, cls_scores: Tensor, boxes: Tensor, objects: PaddedObjects) -> Tensor:
    if cost.box_format == "xyxy":
        boxes, wanted = cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(objects.boxes)
    else:
        wanted = objects.boxes
    return torch.cdist(boxes, wanted.expand(len(boxes), -1, -1, -1), p=1)


def _iou(cost: Any, cls_scores: Tensor, boxes: Tensor, objects: PaddedObjects) -> Tensor:
    return _negative_iou(boxes, objects, cost.iou_mode)


def _negative_iou(boxes: Tensor, objects: PaddedObjects, mode: str) -> Tensor:
    """Negative IoU or GIoU (arXiv 1902.09630), coordinate by coordinate."""
    x1, y1, x2, y2 = cxcywh_to_xyxy(boxes).unsqueeze(-1).unbind(-2)  # (..., num_queries, 1)
    a1, b1, a2, b2 = cxcywh_to_xyxy(objects.boxes).unsqueeze(1).unbind(-1)  # (bs, 1, most)
    width = torch.minimum(x2, a2).sub_(torch.maximum(x1, a1))
    height = torch.minimum(y2, b2).sub_(torch.maximum(y1, b1))
    overlap = width.clamp(min=0) * height.clamp(min=0)
    union = ((x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1)).sub_(overlap).clamp_(min=_LEAST_AREA)
    iou = overlap.div_(union)
    if mode == "iou":
        return iou.neg_()
    # Sides of the smallest box around both: sum of both sides minus the (signed) overlap.
    around = ((x2 - x1) + (a2 - a1)).sub_(width)
    around = around.mul_(((y2 - y1) + (b2 - b1)).sub_(height)).clamp_(min=_LEAST_AREA)
    return around.sub(union).div_(around).sub_(iou)


_BATCHED: dict[type, Callable[..., Tensor]] = {
    FocalLossCost: _focal,
    PositionModulatedFocalCost: _focal,
    BBoxL1Cost: _l1,
    IoUCost: _iou,
    ClassScoreCost: _class_score,
}


def _image_by_image(cost: Any, cls_scores: Tensor, boxes: Tensor, targets: Targets) -> Tensor:
    num_layers, _, num_queries, num_classes = cls_scores.shape
    corners = cxcywh_to_xyxy(boxes) * COMMON_SIZE
    wanted = cxcywh_to_xyxy(targets.boxes) * COMMON_SIZE
    labels = targets.labels.clamp(0, num_classes - 1)
    meta = dict(img_shape=(COMMON_SIZE, COMMON_SIZE))
    most, start, images = max(targets.counts), 0, []
    for image, count in enumerate(targets.counts):
        own = slice(start, start + count)
        start += count
        predictions = InstanceData(
            scores=cls_scores[:, image].flatten(0, 1), bboxes=corners[:, image].flatten(0, 1)
        )
        term = cost(predictions, InstanceData(labels=labels[own], bboxes=wanted[own]), meta)
        term = term.view(num_layers, num_queries, count)
        images.append(torch.nn.functional.pad(term, (0, most - count)))
    return torch.stack(images, dim=1)
