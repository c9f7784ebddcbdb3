"""One-to-many loss of encoder proposals, as in dense heads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from mmdet.models.task_modules.assigners import (
    ATSSAssigner,
    SimOTAAssigner,
    TaskAlignedAssigner,
)
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ...structures import Proposals, Targets
from ...structures.boxes import at_least_float32, cxcywh_to_xyxy
from ..heads.class_loss import check_class_loss, sees_quality, sum_class_loss
from ..matchers import DENSE_ASSIGNERS

# These take priors as corners, the other assigners as centres and strides.
_READ_ANCHORS = (ATSSAssigner, TaskAlignedAssigner)
_READ_PROBABILITIES = (SimOTAAssigner, TaskAlignedAssigner)  # DynamicSoftLabelAssigner reads logits
_NO_OBJECT = -1e4  # logit whose loss as background, and its gradient, is 0


@MODELS.register_module()
class DenseProposalLoss(nn.Module):
    """One of mmdet's assigners for dense heads assigns objects to proposals, one-to-many.

    Paper: RTMDet, Lyu et al. 2022, arXiv 2212.07784, Sec. 3.3 (dynamic soft labels, the default);
    TOOD, Feng et al. 2021, arXiv 2108.07755, Eq. 1 to 3; ATSS, Zhang et al. 2020, arXiv 1912.02424;
    SimOTA, Ge et al. 2021, arXiv 2107.08430. Training a DETR's proposals this way is this package's
    idea: the Hungarian loss assigns an object to a single token, often a different one in the next
    step. Use it with branches as in dense heads: ``num_convs=2, box_form='distance'`` of
    ``TwoStageQueries``.

    The quality of an assigned proposal is the IoU of its box with its object, or, with
    ``TaskAlignedAssigner``, the normalised alignment. It is the target of class losses that use
    quality, and the weight of box losses. All losses are divided by its sum, averaged over
    processes and at least 1, as in mmdet's ``RTMDetHead`` and ``TOODHead``. With other class losses
    every assigned proposal has quality 1. Padding has no loss.

    mmdet's assigners synchronise host and device a few times per image.

    Args:
        assigner: Config of mmdet's ``DynamicSoftLabelAssigner``, ``TaskAlignedAssigner``,
            ``ATSSAssigner`` or ``SimOTAAssigner``; default: ``DynamicSoftLabelAssigner`` with
            topk=13.
        loss_cls: As for ``FastDETRHead``; default: mmdet's ``QualityFocalLoss``.
        loss_iou: Loss of pixel (x1, y1, x2, y2); default: mmdet's ``GIoULoss`` of weight 2.
        loss_bbox: Loss of normalised (cx, cy, w, h), or None.
        anchor_scale: Side of the square anchors in cells, for ``ATSSAssigner``.

    Raises:
        ValueError: if the assigner is of another type, or loss_cls is not a sigmoid loss.
    """

    def __init__(
        self,
        assigner: dict | None = None,
        loss_cls: dict | None = None,
        loss_iou: dict | None = None,
        loss_bbox: dict | None = None,
        anchor_scale: float = 8.0,
    ) -> None:
        super().__init__()
        self.assigner = TASK_UTILS.build(assigner or dict(type="DynamicSoftLabelAssigner", topk=13))
        if not isinstance(self.assigner, DENSE_ASSIGNERS):
            names = ", ".join(cls.__name__ for cls in DENSE_ASSIGNERS)
            raise ValueError(
                f"bbox_head.proposal_loss.assigner of type {type(self.assigner).__name__} is not "
                f"one of mmdet's assigners for dense heads; use one of {names}."
            )
        self.loss_cls = MODELS.build(loss_cls or dict(type="QualityFocalLoss", use_sigmoid=True))
        self.loss_iou = MODELS.build(loss_iou or dict(type="GIoULoss", loss_weight=2.0))
        self.loss_bbox = MODELS.build(loss_bbox) if loss_bbox else None
        self.anchor_scale = anchor_scale
        check_class_loss(self.loss_cls, 2, "bbox_head.proposal_loss.loss_cls")

    def forward(self, proposals: Proposals, targets: Targets) -> dict[str, Tensor]:
        """Compute ``loss_cls``, ``loss_iou`` and, if configured, ``loss_bbox``; scalars.

        Args:
            proposals: Proposals of all tokens; losses are averaged over query initialisers with
                proposals of their own.
            targets: Objects of the batch; all of class 0 if proposals have no classes.
        """
        assert proposals.candidates is not None
        # The matching refuses wrong labels, in a way that no other process waits for.
        labels = targets.labels.clamp(0, proposals.cls_scores.shape[-1] - 1)
        targets = replace(targets, labels=labels)
        per_initialiser = [
            self._compare(replace(proposals, cls_scores=scores, boxes=boxes), targets)
            for scores, boxes in zip(
                *(
                    x.split(proposals.candidates.shape[1], dim=1)
                    for x in (proposals.cls_scores, proposals.boxes)
                ),
                strict=True,
            )
        ]
        names = per_initialiser[0]
        return {n: torch.stack([own[n] for own in per_initialiser]).mean() for n in names}

    def _compare(self, proposals: Proposals, targets: Targets) -> dict[str, Tensor]:
        assert proposals.candidates is not None
        logits = at_least_float32(proposals.cls_scores)
        logits = logits.masked_fill(~proposals.candidates.unsqueeze(-1), _NO_OBJECT)
        token, object_, alignment = self.assign(proposals, targets)
        predicted, wanted = proposals.boxes.flatten(0, 1)[token], targets.boxes[object_]
        scale = targets.scales[torch.div(token, logits.shape[1], rounding_mode="floor")]
        corners, wanted_corners = (cxcywh_to_xyxy(x) * scale for x in (predicted, wanted))
        if not sees_quality(self.loss_cls):
            weight = corners.new_ones(len(token))
        elif alignment is not None:
            weight = alignment
        else:
            weight = bbox_overlaps(corners.detach(), wanted_corners, is_aligned=True)
        # at least 1 over all processes, so that their number does not change the gradient
        divisor = reduce_mean(weight.sum()).clamp(min=1 / get_world_size())
        loss_cls = sum_class_loss(
            self.loss_cls, logits[None], token, targets.labels[object_], weight
        )
        boxes = dict(loss_iou=(self.loss_iou, corners, wanted_corners))
        if self.loss_bbox is not None:
            boxes["loss_bbox"] = (self.loss_bbox, predicted, wanted)
        losses = {"loss_cls": loss_cls[0] / divisor}
        for name, (loss, *pair) in boxes.items():
            if len(token) == 0:  # zero, in the graph so that every parameter has a gradient
                losses[name] = proposals.boxes.sum() * 0
                continue
            values = loss(*pair, reduction_override="none").reshape(len(token), -1).sum(1)
            losses[name] = (values * weight).sum() / divisor
        return losses

    @torch.no_grad()
    def assign(
        self, proposals: Proposals, targets: Targets
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Assign objects to proposals.

        Shape:
            returns: (num_pairs,) unique indices into (bs, num_tokens) flattened; (num_pairs,)
                indices into the batch's objects; (num_pairs,) normalised alignment, if the assigner
                computes it.
        """
        assert proposals.priors is not None and proposals.candidates is not None
        scores = proposals.cls_scores.float()
        if isinstance(self.assigner, _READ_PROBABILITIES):
            scores = scores.sigmoid()
        scale = targets.scales.unsqueeze(1)
        boxes, priors = cxcywh_to_xyxy(proposals.boxes) * scale, proposals.priors * scale
        if isinstance(self.assigner, _READ_ANCHORS):
            centre, cell = priors.split(2, dim=-1)
            priors = cxcywh_to_xyxy(torch.cat([centre, cell * self.anchor_scale], dim=-1))
        wanted = cxcywh_to_xyxy(targets.boxes)
        tokens, objects, alignments = [], [], []
        start = 0
        for image, count in enumerate(targets.counts):
            stop = start + count
            (own,) = proposals.candidates[image].nonzero(as_tuple=True)
            given: dict[str, Any] = dict(priors=priors[image, own].float())
            levels: dict[str, Any] = {}
            if isinstance(self.assigner, ATSSAssigner):
                per_level = proposals.candidates[image].split(proposals.level_sizes)
                levels = dict(num_level_priors=[int(level.sum()) for level in per_level])
            if not levels or self.assigner.alpha is not None:
                given |= dict(scores=scores[image, own], bboxes=boxes[image, own].float())
            result = self.assigner.assign(
                pred_instances=InstanceData(**given),
                gt_instances=InstanceData(
                    labels=targets.labels[start:stop],
                    bboxes=(wanted[start:stop] * targets.scales[image]).float(),
                ),
                **levels,
            )
            (chosen,) = (result.gt_inds > 0).nonzero(as_tuple=True)
            tokens.append(own[chosen] + image * scores.shape[1])
            objects.append(result.gt_inds[chosen] - 1 + start)
            if isinstance(self.assigner, TaskAlignedAssigner):
                alignments.append((result.assign_metrics[chosen], result.max_overlaps[chosen]))
            start = stop
        token, object_ = torch.cat(tokens), torch.cat(objects)
        if not alignments:
            return token, object_, None
        metric, overlap = (torch.cat(x) for x in zip(*alignments, strict=True))
        most, best = (
            x.new_zeros(targets.num_objects).scatter_reduce(0, object_, x, "amax")[object_]
            for x in (metric, overlap)
        )
        return token, object_, metric / (most + 1e-7) * best
