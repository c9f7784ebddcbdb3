"""Interface between heads and matchers, with an adapter for mmdet's assigners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models.task_modules.assigners import (
    AssignResult,
    ATSSAssigner,
    BaseAssigner,
    DynamicSoftLabelAssigner,
    SimOTAAssigner,
    TaskAlignedAssigner,
)
from mmengine.structures import InstanceData
from torch import Tensor

from ...structures import QueryGroup, Targets
from ...structures.boxes import cxcywh_to_xyxy

# mmdet's assigners of dense heads, which assign cells of feature maps, not queries.
DENSE_ASSIGNERS = (ATSSAssigner, DynamicSoftLabelAssigner, SimOTAAssigner, TaskAlignedAssigner)


@dataclass(frozen=True)
class Call:
    """Predictions of a group of queries in all layers, to match with objects.

    Args:
        cls_scores, boxes, targets, what: As for ``Matcher.match``.
        group: Tells which parts of the queries are matched separately, and how often a part repeats
            objects.
        matcher: Matcher to use instead of the one that is called.
    """

    cls_scores: Tensor
    boxes: Tensor
    targets: Targets
    what: str
    group: QueryGroup
    matcher: Matcher | None = None


@dataclass(frozen=True)
class Matches:
    """Matched pairs of all layers and images, in any order and number.

    Shape:
        query_index: (num_pairs,) long, into (num_layers, bs, num_queries) flattened; unique.
        object_index: (num_pairs,) long, into the batch's concatenated objects.
    """

    query_index: Tensor
    object_index: Tensor


class Matcher(BaseAssigner):
    """Base class of assigners that match all layers and images of a batch in one call."""

    def match(
        self, cls_scores: Tensor, boxes: Tensor, targets: Targets, what: str = "decoder layer"
    ) -> Matches:
        """Match every layer's queries of every image with the image's objects.

        Args:
            cls_scores, boxes: Predictions of all layers.
            targets: Objects of all images.
            what: Name of a layer in messages.

        Shape:
            cls_scores: (num_layers, bs, num_queries, num_classes) logits
            boxes: (num_layers, bs, num_queries, 4) normalised (cx, cy, w, h)
        """
        raise NotImplementedError

    def match_all(self, calls: Sequence[Call]) -> list[Matches]:
        """Matches of every call, for encoder proposals, decoder layers and groups of queries.

        By default this calls ``match`` for each part of each call.
        """
        return [(call.matcher or self)._match_parts(call) for call in calls]

    def _match_parts(self, call: Call) -> Matches:
        parts, num_queries = call.group.parts, call.cls_scores.shape[2]
        size = num_queries // parts
        targets, origin = call.targets.repeated(call.group.repeats)
        query_index, object_index = [], []
        for part, (cls_scores, boxes) in enumerate(
            zip(call.cls_scores.split(size, 2), call.boxes.split(size, 2), strict=True)
        ):
            found = self.match(cls_scores, boxes, targets, call.what)
            row = torch.div(found.query_index, size, rounding_mode="floor")
            query_index.append(found.query_index + row * (num_queries - size) + part * size)
            object_index.append(origin[found.object_index])
        return Matches(torch.cat(query_index), torch.cat(object_index))


class AssignerMatcher(Matcher):
    """Adapter of one of mmdet's assigners, which is called per layer and image."""

    def __init__(self, assigner: BaseAssigner) -> None:
        self.assigner = assigner

    def assign(self, *args: Any, **kwargs: Any) -> AssignResult:
        """Call mmdet's assigner."""
        return self.assigner.assign(*args, **kwargs)

    def match(
        self, cls_scores: Tensor, boxes: Tensor, targets: Targets, what: str = "decoder layer"
    ) -> Matches:
        """See ``Matcher.match``."""
        num_layers, bs, num_queries, _ = cls_scores.shape
        query_index, object_index = [], []
        for layer in range(num_layers):
            start = 0
            for image, count in enumerate(targets.counts):
                scale = targets.scales[image]
                w, h = scale[:2].tolist()
                result = self.assigner.assign(
                    InstanceData(
                        scores=cls_scores[layer, image].detach(),
                        bboxes=cxcywh_to_xyxy(boxes[layer, image].detach()) * scale,
                    ),
                    InstanceData(
                        labels=targets.labels[start : start + count],
                        bboxes=cxcywh_to_xyxy(targets.boxes[start : start + count]) * scale,
                    ),
                    dict(img_shape=(h, w)),
                )
                matched = (result.gt_inds > 0).nonzero()[:, 0]
                query_index.append(matched + (layer * bs + image) * num_queries)
                object_index.append(result.gt_inds[matched] - 1 + start)
                start += count
        return Matches(torch.cat(query_index), torch.cat(object_index))
