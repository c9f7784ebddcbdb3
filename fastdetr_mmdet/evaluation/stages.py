"""Show where a detector loses AP: COCO metrics of its proposals and of every decoder layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch
from mmcv.ops import batched_nms
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..models import FastDETR, TwoStageQueries
from ..models.parts import QueryInitialiser
from ..structures import DecoderOutput
from ..structures.boxes import inverse_sigmoid, xyxy_to_cxcywh
from ..utils.cli import UserError
from .coco_table import evaluates_coco_boxes, run_coco
from .evaluate import EvaluationSet, Progress, image_result
from .results import ImageResult

NMS_IOU = 0.7
CANDIDATES = 1000  # detections per image before NMS
FIGURES = ("AP", "AP50", "AR100")
PROPOSALS, SELECTED = "all proposals", "selected proposals"
TRUE_BOXES = "last layer, true boxes as references"


def measure_stages(
    model: Any, data: EvaluationSet, progress: Progress = lambda text: None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Compute COCO metrics of every stage of a detector on one dataset.

    Args:
        model: A ``FastDETR``.
        data: Set with a ``CocoMetric`` that has an annotation file; its thresholds and limits are
            used.
        progress: Called with progress messages.

    Returns:
        A row per stage, in order: ``stage``, ``class_agnostic``, ``FIGURES`` in [0, 1], and under
        ``nms`` the same after NMS within each class; and notes on rows that are left out.

    Raises:
        UserError: if the model is not a FastDETR, or the evaluator has no such metric.
    """
    if not isinstance(model, FastDETR):
        raise UserError(
            f"The config's model is {type(model).__name__}; this command is for FastDETR."
        )
    metric = next(filter(evaluates_coco_boxes, data.evaluator.metrics), None)
    if metric is None:
        kinds = ", ".join(type(metric).__name__ for metric in data.evaluator.metrics)
        raise UserError(
            f"The config's evaluator is {kinds}; give a CocoMetric with ann_file and metric='bbox'."
        )
    watch = _Watch(model, data)
    with watch.watching(), torch.no_grad():
        for batch in data.loader:
            model.test_step(batch)
            progress(f"{watch.images} of {len(data.infos)} images")
    ids = list(data.infos) if data.partial else None

    def figures(images: Sequence[ImageResult], agnostic: bool) -> dict[str, float]:
        evaluation = run_coco(metric, images, data.classes, ids, agnostic)
        if evaluation is None:
            return dict.fromkeys(FIGURES, 0.0)
        recall = evaluation.eval["recall"][..., 0, evaluation.params.maxDets.index(100)]
        return dict(zip(FIGURES, [*evaluation.stats[:2], recall[recall > -1].mean()], strict=True))

    rows = []
    for stage, (plain, kept) in watch.found.items():
        agnostic = stage in (PROPOSALS, SELECTED) and not watch.class_aware
        row = dict(stage=stage, class_agnostic=agnostic, **figures(plain, agnostic))
        rows.append(row | dict(nms=figures(kept, agnostic)))
        progress(f"{stage}: AP {row['AP']:.4f}")
    return rows, watch.notes()


class _Watch:
    """Collects the detections of every stage while a model predicts.

    Args:
        model: The model, whose head and query initialiser get hooks.
        data: Set of the images.
    """

    def __init__(self, model: Any, data: EvaluationSet) -> None:
        self.model, self.infos = model, data.infos
        self.head, self.transformer = model.bbox_head, model.transformer
        self.images = 0
        self.found: dict[str, tuple[list[ImageResult], list[ImageResult]]] = {}
        self.proposing = self.transformer.queries  # or the wrapped query initialiser
        while isinstance(inner := getattr(self.proposing, "queries", None), QueryInitialiser):
            self.proposing = inner
        self.class_aware = self.head.class_aware_proposals
        self.seen: Any = None  # arguments and queries of the query initialiser
        self.features: Sequence[Tensor] = ()  # input of the transformer

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Context in which predictions are collected."""

        def look(module: Any, arguments: tuple, made: tuple) -> None:
            self.seen = arguments, made[0]

        def keep(module: Any, arguments: tuple, made: Sequence[Tensor]) -> None:
            self.features = made

        hooks = [self.transformer.queries.register_forward_hook(look)]
        hooks.append((self.model.neck or self.model.backbone).register_forward_hook(keep))
        self.head.predict = self.collect  # hides the class's method
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            del self.head.predict

    def collect(self, output: DecoderOutput, samples: Sequence, rescale: bool = True) -> list:
        """Collect detections of all stages; return the last layer's, like the head."""
        self.images += len(samples)
        metas = [sample.metainfo for sample in samples]
        stages = dict(self.proposals())
        layers = [*zip(*self.head(output), strict=True)]
        stages |= {f"layer {number}": layer for number, layer in enumerate(layers, 1)}
        if (with_truth := self.with_true_boxes(samples)) is not None:
            stages[TRUE_BOXES] = with_truth
        for stage, candidates in self.auxiliary(metas):
            limit = self.head.test_cfg.get("max_per_img", 100)
            self.keep(stage, samples, [found[:limit] for found in candidates], candidates)
        for stage, predicted in stages.items():
            detections = self.detect(*predicted, metas)
            self.keep(stage, samples, detections, self.detect(*predicted, metas, CANDIDATES))
        return self.head.predict_by_feat(*layers[-1], metas, rescale)

    def keep(self, stage: str, samples: Sequence, *detections: Sequence[InstanceData]) -> None:
        """Add a batch's detections to a stage, and candidates after NMS."""
        plain, kept = self.found.setdefault(stage, ([], []))
        for sample, own, more in zip(samples, *detections, strict=True):
            info = self.infos[sample.img_id]
            plain.append(image_result(own, info))
            kept.append(image_result(self.without_duplicates(more), info))

    def auxiliary(self, metas: Sequence[dict]) -> Iterator[tuple[str, list[InstanceData]]]:
        """Detections of auxiliary heads, best first."""
        features, ((memory, *_), _) = self.features, self.seen
        if self.model.aux_heads_on == "encoder":
            features = memory.maps()
        settings = ConfigDict(nms_pre=CANDIDATES, min_bbox_size=0, score_thr=0.0)
        head: Any
        for index, head in enumerate(self.model.aux_heads):
            found = head.predict_by_feat(
                *head(features), batch_img_metas=metas, cfg=settings, rescale=True, with_nms=False
            )
            found = [each[each.scores.argsort(descending=True)[:CANDIDATES]] for each in found]
            yield f"auxiliary head {index} ({type(head).__name__})", found

    def proposals(self) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
        """Logits and boxes of encoder proposals, of all and of selected tokens."""
        queries: Any = self.proposing
        if not isinstance(queries, TwoStageQueries):
            return
        supervised = queries.supervise
        for stage, queries.supervise in ((PROPOSALS, "all"), (SELECTED, "selected")):
            found = queries(*self.seen[0])[1]
            scores = found.cls_scores if self.class_aware else found.cls_scores[..., :1]
            yield stage, (scores, found.boxes)
        queries.supervise = supervised

    def with_true_boxes(self, samples: Sequence) -> tuple[Tensor, Tensor] | None:
        """Logits and boxes of the last layer if each object has a query at its true box.

        The query nearest to an object moves; contents stay.
        """
        (memory, *_), queries = self.seen
        if queries.reference is None:
            return None
        logits = queries.reference_logits.clone()
        for image, sample in enumerate(samples):
            wanted = self.true_boxes(sample)[:, : logits.shape[-1]].to(logits)
            distance = torch.cdist(queries.reference[image], wanted, p=1).cpu().numpy()
            index, which = linear_sum_assignment(distance)
            logits[image, index] = inverse_sigmoid(wanted[which])
        if queries.pos is not None:
            with suppress(NotImplementedError):  # learned positions do not move
                queries = replace(queries, pos=self.proposing.position(logits))
        moved = queries.with_reference(logits)
        decoded = self.transformer.decoder(moved, memory, self.head.box_branches)
        return self.head.last_layer(decoded)

    def true_boxes(self, sample: Any) -> Tensor:
        """Objects of an image except crowds, normalised (cx, cy, w, h)."""
        info = self.infos[sample.img_id]
        objects = [o["bbox"] for o in info["instances"] if not o.get("ignore_flag", 0)]
        size = torch.tensor([*sample.img_shape[1::-1]] * 2)
        factor = torch.tensor([*sample.get("scale_factor", (1.0, 1.0))] * 2)
        return xyxy_to_cxcywh(torch.tensor(objects).reshape(-1, 4) * factor / size)

    def detect(
        self, scores: Tensor, boxes: Tensor, metas: Sequence[dict], limit: int | None = None
    ) -> list[InstanceData]:
        """Detections by the head from logits and boxes; ``limit``: maximum number per image."""
        settings = self.head.test_cfg
        limits = {} if limit is None else dict(max_per_img=limit)
        self.head.test_cfg = dict(settings, nms=None, **limits)
        found = self.head.predict_by_feat(scores, boxes, metas, rescale=True)
        self.head.test_cfg = settings
        return found

    def without_duplicates(self, found: InstanceData) -> InstanceData:
        """Detections after NMS within each class, up to the head's maximum."""
        if len(found) == 0:  # mmcv's NMS fails on none
            return found
        kept = batched_nms(
            found.bboxes, found.scores, found.labels, dict(type="nms", iou_threshold=NMS_IOU)
        )[1]
        return found[kept[: self.head.test_cfg.get("max_per_img", 100)]]

    def notes(self) -> list[str]:
        """Notes on unexpected settings."""
        notes = []
        if PROPOSALS not in self.found:
            notes.append(
                f"{type(self.proposing).__name__} makes no proposals, so there are no rows of "
                "proposals."
            )
        elif not self.class_aware:
            notes.append("Proposals have no classes, so their metrics are class-agnostic.")
        if TRUE_BOXES not in self.found:
            notes.append(
                "Queries have no reference before the decoder, so there is no row with true boxes."
            )
        return notes
