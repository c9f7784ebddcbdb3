"""COCO's figures, for all classes together and for each."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools.cocoeval import COCOeval

if TYPE_CHECKING:
    from .results import ImageResult

COLUMNS = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large")
METRICS = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")  # mmdet's names, same order


@dataclass(frozen=True)
class CocoTable:
    """Figures in [0, 1] by the names of ``COLUMNS``; None where there are no objects.

    Args:
        overall: Of all classes.
        classes: Of each class, by its name, in the order of the data set.
        objects: Number of objects of each class in the images that were evaluated.
    """

    overall: dict[str, float | None]
    classes: dict[str, dict[str, float | None]]
    objects: dict[str, int]


def coco_table(
    metric: Any, images: Sequence[ImageResult], classes: Sequence[str]
) -> CocoTable | None:
    """Figures as mmdet's CocoMetric computes them, with its IoU thresholds, images and limits.

    Args:
        metric: An evaluated metric.
        images: The results that it was given.
        classes: Names of the classes, by label.

    Returns:
        The table, or None if the metric is not CocoMetric or does not evaluate boxes.
    """
    coco = getattr(metric, "_coco_api", None)
    if coco is None or "bbox" not in getattr(metric, "metrics", ()):
        return None
    detections = [
        dict(
            image_id=image.image_id, bbox=_xywh(box), score=score, category_id=metric.cat_ids[label]
        )
        for image in images
        for box, label, score in zip(
            image.boxes.tolist(), image.labels.tolist(), image.scores.tolist(), strict=True
        )
    ]
    objects = _count_objects(images, classes)
    if not detections:
        nothing = {name: 0.0 if sum(objects.values()) else None for name in COLUMNS}
        per_class = {name: {c: 0.0 if objects[name] else None for c in COLUMNS} for name in classes}
        return CocoTable(nothing, per_class, objects)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation = COCOeval(coco, coco.loadRes(detections), "bbox")
        evaluation.params.catIds = metric.cat_ids
        evaluation.params.imgIds = metric.img_ids
        evaluation.params.maxDets = list(metric.proposal_nums)
        evaluation.params.iouThrs = metric.iou_thrs
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"]  # (iou, recall, class, area, limit)
    # which of COCO's limits each figure is at: 100 detections for AP, the largest for the others,
    # as in pycocotools's summary
    return CocoTable(
        overall={
            name: _figure(value) for name, value in zip(COLUMNS, evaluation.stats[:6], strict=True)
        },
        classes={
            name: _class_figures(precision[:, :, index], evaluation.params)
            for index, name in enumerate(classes)
        },
        objects=objects,
    )


def _class_figures(precision: np.ndarray, params: Any) -> dict[str, float | None]:
    """Figures of one class, by the rules of pycocotools's summary.

    Shape:
        precision: (iou, recall, area, limit), -1 where there are no objects
    """
    limits, thresholds = list(params.maxDets), list(params.iouThrs)
    at_100 = limits.index(100) if 100 in limits else None
    choices = [
        (slice(None), 0, at_100),
        (_index(thresholds, 0.5), 0, -1),
        (_index(thresholds, 0.75), 0, -1),
        *((slice(None), area, -1) for area in (1, 2, 3)),
    ]
    return {
        name: None if iou is None or limit is None else _mean(precision[iou, :, area, limit])
        for name, (iou, area, limit) in zip(COLUMNS, choices, strict=True)
    }


def _index(thresholds: Sequence[float], value: float) -> int | None:
    found = np.flatnonzero(np.isclose(thresholds, value))
    return int(found[0]) if len(found) else None


def _mean(precision: np.ndarray) -> float | None:
    counted = precision[precision > -1]
    return float(counted.mean()) if counted.size else None


def _figure(value: float) -> float | None:
    return None if value < 0 or np.isnan(value) else float(value)


def _count_objects(images: Sequence[ImageResult], classes: Sequence[str]) -> dict[str, int]:
    counts = np.zeros(len(classes), dtype=int)
    for image in images:
        labels = image.true_labels[~image.crowd]
        counts += np.bincount(labels, minlength=len(classes))[: len(classes)]
    return dict(zip(classes, counts.tolist(), strict=True))


def _xywh(box: Sequence[float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]
