"""The set loss of one call of a matcher: classes and boxes of all layers against their objects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor, nn

from ...structures import QueryGroup, Targets
from ...structures.boxes import at_least_float32, cxcywh_to_xyxy
from ..matchers import Call, Matches
from .class_loss import sees_quality, sum_class_loss


def calls_of(
    cls_scores: Tensor, boxes: Tensor, targets: Targets, groups: Sequence[QueryGroup], what: str
) -> list[Call]:
    """One call per group of queries; without groups, one for all."""
    groups = groups or [QueryGroup("", cls_scores.shape[2])]
    sizes = [group.size for group in groups]
    shares = zip(cls_scores.split(sizes, 2), boxes.split(sizes, 2), groups, strict=True)
    return [Call(scores, own, targets, what, group) for scores, own, group in shares]


def given_matches(call: Call) -> Matches:
    """Matches of a group whose pairs are given, in every layer."""
    assert call.group.pairs is not None
    query_index, object_index = call.group.pairs
    num_layers, bs, num_queries = call.boxes.shape[:3]
    layers = torch.arange(num_layers, device=call.boxes.device).unsqueeze(1)
    return Matches(
        (query_index + layers * (bs * num_queries)).flatten(), object_index.repeat(num_layers)
    )


def compare(
    call: Call,
    matches: Matches,
    num_boxes: Tensor,
    loss_cls: nn.Module,
    loss_bbox: nn.Module,
    loss_iou: nn.Module,
) -> dict[str, Tensor]:
    """The three losses of matched queries by name, each (num_layers,).

    Args:
        call: Predictions and objects.
        matches: Their pairs.
        num_boxes: (1,) divisor: number of objects, averaged over processes.
        loss_cls, loss_bbox, loss_iou: As of ``FastDETRHead``.
    """
    cls_scores, boxes, targets, group = call.cls_scores, call.boxes, call.targets, call.group
    num_layers, bs, num_queries, num_classes = cls_scores.shape
    prefix = f"{group.name}_" if group.name else ""
    names = [f"{prefix}loss_{name}" for name in ("cls", "bbox", "iou")]
    if num_queries == 0:  # may hold on one process only
        return dict.fromkeys(names, _nothing(boxes))
    num_boxes = num_boxes / group.weight

    predicted = boxes.flatten(0, 2)[matches.query_index]  # (num_pairs, 4)
    wanted = targets.boxes[matches.object_index]
    layer_and_image = torch.div(matches.query_index, num_queries, rounding_mode="floor")
    layer = torch.div(layer_and_image, bs, rounding_mode="floor")
    scale = targets.scales[layer_and_image % bs]
    corners = cxcywh_to_xyxy(predicted) * scale
    wanted_corners = cxcywh_to_xyxy(wanted) * scale

    if group.pairs is None:  # parts of a matched group count as images of their own
        cls_scores = cls_scores.reshape(num_layers, bs * group.parts, -1, num_classes)
    quality = None
    if sees_quality(loss_cls):
        quality = bbox_overlaps(corners.detach(), wanted_corners, is_aligned=True)
    of_classes = sum_class_loss(
        loss_cls,
        at_least_float32(cls_scores),
        matches.query_index,
        targets.labels[matches.object_index],
        quality,
    )
    losses = [of_classes / num_boxes]
    if len(predicted) == 0:
        return dict(zip(names, losses + [_nothing(boxes)] * 2, strict=True))
    for values in (
        loss_bbox(predicted, wanted, reduction_override="none"),
        loss_iou(corners, wanted_corners, reduction_override="none"),
    ):
        values = values.reshape(len(layer), -1).sum(1)
        total = values.new_zeros(num_layers).index_add(0, layer, values)
        losses.append(total / num_boxes)
    return dict(zip(names, losses, strict=True))


def _nothing(boxes: Tensor) -> Tensor:
    """Zero losses without objects, in the graph so that every parameter has a gradient."""
    return boxes.flatten(1).sum(1) * 0
