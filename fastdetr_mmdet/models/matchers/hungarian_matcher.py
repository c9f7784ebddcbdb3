"""Batched bipartite matching of queries and objects (DETR, Carion et al. 2020, Eq. 1 and 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ...structures import QueryGroup, Targets
from ...structures.targets import name_image
from .match_costs import check_cost, cost_terms
from .matcher import Call, Matcher, Matches

DETR_COSTS = (
    dict(type="FocalLossCost", weight=2.0),
    dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
    dict(type="IoUCost", iou_mode="giou", weight=2.0),
)


@TASK_UTILS.register_module()
class HungarianMatcher(Matcher):
    """One-to-one matching of least total cost.

    Paper: DETR, Carion et al. 2020, arXiv 2005.12872, Sec. 3.1, Eq. 1 and 2.

    ``match`` takes all decoder layers and images at once: costs are computed on the device, copied
    to the host once, and solved by scipy. Costs are float32 in every precision of the model. When
    an image has more objects than queries, the cheapest subset is matched and the other objects
    stay unmatched.

    ``assign`` does the same for one image, so that mmdet's DETR heads take this class as their
    ``train_cfg.assigner``.

    Args:
        match_costs: mmdet match-cost configs; None: the costs 2 / 5 / 2 of focal class cost, L1 on
            normalised (cx, cy, w, h) and GIoU that Deformable DETR and its successors use.

    Raises:
        ValueError: if match_costs is empty, or a cost needs more than classes and boxes, such as
            masks.
    """

    def __init__(self, match_costs: Sequence[dict] | dict | None = None) -> None:
        if isinstance(match_costs, dict):
            match_costs = [match_costs]
        configs = DETR_COSTS if match_costs is None else match_costs
        if not configs:
            raise ValueError("HungarianMatcher: match_costs is empty; name at least one cost.")
        self.match_costs = [TASK_UTILS.build(dict(cost)) for cost in configs]
        for cost in self.match_costs:
            check_cost(cost)

    def match(
        self, cls_scores: Tensor, boxes: Tensor, targets: Targets, what: str = "decoder layer"
    ) -> Matches:
        """See ``Matcher.match``.

        Raises:
            ValueError: if a class index is out of range or a cost is not finite; the message names
                the image, the decoder layer and the cost term.
        """
        group = QueryGroup("", cls_scores.shape[2])
        return self._match_all([Call(cls_scores, boxes, targets, what, group)])[0]

    def match_all(self, calls: Sequence[Call]) -> list[Matches]:
        """Matches of every call, after one copy for all."""
        asked = [(call.matcher or self, call) for call in calls]
        # a subclass may override match
        packs = [type(matcher).match is HungarianMatcher.match for matcher, _ in asked]
        packed = [call for call, one in zip(calls, packs, strict=True) if one]
        together = iter(self._match_all(packed) if packed else ())
        return [
            next(together) if one else matcher._match_parts(call)
            for (matcher, call), one in zip(asked, packs, strict=True)
        ]

    @torch.no_grad()
    def _match_all(self, calls: Sequence[Call]) -> list[Matches]:
        matchers: list[Any] = [call.matcher or self for call in calls]
        pending = [matcher._pack(call) for matcher, call in zip(matchers, calls, strict=True)]
        host = torch.cat([one.packed for one in pending]).cpu().numpy()
        shares = np.split(host, np.cumsum([len(one.packed) for one in pending])[:-1])
        solved = [
            matcher._unpack(*pair) for matcher, *pair in zip(matchers, pending, shares, strict=True)
        ]
        return [
            Matches(*torch.from_numpy(pairs).to(one.packed.device, non_blocking=True))
            for one, pairs in zip(pending, solved, strict=True)
        ]

    def _pack(self, call: Call) -> _Pending:
        cls_scores, boxes, targets = call.cls_scores, call.boxes, call.targets
        # An image without objects has no costs to show NaN, so the outputs are checked.
        finite = (_is_finite(cls_scores) & _is_finite(boxes)).flatten().float()
        if targets.num_objects == 0:
            return _Pending(finite, [], call)
        with torch.autocast(cls_scores.device.type, enabled=False):
            terms = cost_terms(self.match_costs, cls_scores, boxes, targets)
        cost = sum(terms[1:], terms[0])  # (num_layers, bs, num_queries, most objects)
        blocks = [cost[:, image, :, :count] for image, count in enumerate(targets.counts)]
        # Labels and flags are exact in float32 and share the costs' copy to the host.
        parts = [finite, targets.labels.float(), *(block.flatten() for block in blocks)]
        return _Pending(torch.cat(parts), terms, call)

    def _unpack(self, one: _Pending, host: np.ndarray) -> np.ndarray:
        """Check the values copied to the host, and solve; see ``_solve``."""
        num_layers, bs, num_queries, num_classes = one.call.cls_scores.shape
        targets, what = one.call.targets, one.call.what
        flags, labels, costs = np.split(host, np.cumsum([num_layers * bs, targets.num_objects]))
        self._check_labels(labels, targets, num_classes)
        per_image = np.split(costs, num_layers * num_queries * np.cumsum(targets.counts)[:-1])
        host_blocks = [
            block.reshape(num_layers, num_queries, count)
            for block, count in zip(per_image, targets.counts, strict=True)
        ]
        for image, block in enumerate(host_blocks):
            if not np.isfinite(block).all():
                layer = int(np.argmax(~np.isfinite(block).all(axis=(1, 2))))
                parts = [term[layer, image, :, : targets.counts[image]] for term in one.terms]
                self._raise_not_finite(parts, f"{what} {layer}", targets.image_ids[image])
        self._check_outputs(flags.reshape(num_layers, bs) > 0, targets.image_ids, what)
        return self._solve(host_blocks, one.call.group)

    def _solve(self, host_blocks: list[np.ndarray], group: QueryGroup) -> np.ndarray:
        """Query and object index of every pair, ordered by layer, image and query.

        Shape:
            host_blocks: per image the costs, (num_layers, num_queries, objects of the image)
            returns: (2, num_pairs) int64
        """
        query_index, object_index = [], []
        bs, (num_layers, num_queries, _) = len(host_blocks), host_blocks[0].shape
        for layer in range(num_layers):
            start = 0
            for image, block in enumerate(host_blocks):
                for part in np.split(np.arange(num_queries), group.parts):
                    rows, columns = self.pair(np.tile(block[layer, part], group.repeats))
                    query_index.append(part[rows] + (layer * bs + image) * num_queries)
                    object_index.append(columns % max(block.shape[-1], 1) + start)
                start += block.shape[-1]
        return np.stack([np.concatenate(query_index), np.concatenate(object_index)])

    def pair(self, costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Matched queries, unique, and their objects, from finite costs (queries, objects)."""
        return linear_sum_assignment(costs)

    def _check_labels(self, labels: np.ndarray, targets: Targets, num_classes: int) -> None:
        wrong = (labels < 0) | (labels >= num_classes)
        if wrong.any():
            position = int(np.argmax(wrong))
            image = int(np.searchsorted(np.cumsum(targets.counts), position, side="right"))
            raise ValueError(
                f"Class index {int(labels[position])} of image ({targets.image_ids[image]}) is out "
                f"of range for {num_classes} classes; set model.bbox_head.num_classes to the "
                "number of classes in the dataset's metainfo."
            )

    def _check_outputs(self, finite: np.ndarray, image_ids: Sequence[str], what: str) -> None:
        if not finite.all():
            layer, image = np.argwhere(~finite)[0]
            raise ValueError(
                f"The network's outputs are not finite for image ({image_ids[image]}), {what} "
                f"{layer}; lower the learning rate or clip gradients (optim_wrapper.clip_grad), "
                "and check that image."
            )

    def _raise_not_finite(self, parts: list[Tensor], layer: str, image_id: str) -> None:
        names = [
            type(cost).__name__
            for cost, part in zip(self.match_costs, parts, strict=True)
            if not torch.isfinite(part).all()
        ]
        raise ValueError(
            f"Matching cost is not finite for image ({image_id}), {layer}, cost term "
            f"{' and '.join(names) or 'sum of all'}: the network's outputs or the image's boxes "
            "are NaN or infinite; lower the learning rate or clip gradients "
            "(optim_wrapper.clip_grad), and check the boxes of that image."
        )

    @torch.no_grad()
    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        img_meta: dict | None = None,
        **kwargs,
    ) -> AssignResult:
        """Match one image, with the interface of mmdet's heads; errors as for ``match``.

        Boxes are pixel xyxy, scores are logits; ``img_meta`` must hold ``img_shape``, (h, w).
        """
        meta = img_meta or {}
        num_objects, num_queries = len(gt_instances), len(pred_instances)
        labels = gt_instances.labels
        assigned = labels.new_zeros(num_queries)  # 0 = background, i + 1 = object i
        assigned_labels = labels.new_full((num_queries,), -1)
        if num_objects and num_queries:
            scores = _spread_infinity(pred_instances.scores.float())
            predictions = InstanceData(scores=scores, bboxes=pred_instances.bboxes.float())
            objects = InstanceData(
                labels=labels.clamp(0, scores.shape[-1] - 1), bboxes=gt_instances.bboxes
            )
            with torch.autocast(scores.device.type, enabled=False):
                terms = [cost(predictions, objects, img_meta) for cost in self.match_costs]
            cost = torch.stack(terms).sum(0)
            host = torch.cat([cost.flatten(), labels.float()]).cpu().numpy()
            target = Targets(labels, labels, (num_objects,), labels, (name_image(meta),))
            self._check_labels(host[-num_objects:], target, scores.shape[-1])
            host = host[:-num_objects].reshape(num_queries, num_objects)
            if not np.isfinite(host).all():
                self._raise_not_finite(terms, "one decoder layer", name_image(meta))
            rows, columns = (torch.from_numpy(x) for x in self.pair(host))
            rows, columns = rows.to(labels.device), columns.to(labels.device)
            assigned[rows] = columns + 1
            assigned_labels[rows] = labels[columns]
        return AssignResult(num_objects, assigned, None, labels=assigned_labels)


@dataclass(frozen=True)
class _Pending:
    """A call whose costs are still on the device: flags, labels and costs in one row of floats."""

    packed: Tensor
    terms: list[Tensor]
    call: Call


def _is_finite(x: Tensor) -> Tensor:
    """Per layer and image, in one pass fewer than ``isfinite``: (num_layers, bs) bool."""
    return (x.float() * 0).flatten(2).sum(-1) == 0


def _spread_infinity(logits: Tensor) -> Tensor:
    """Make all logits of a query NaN if one is infinite.

    Costs could be finite where the loss is NaN; so the matcher reports it.
    """
    return logits + (logits * 0).sum(-1, keepdim=True)
