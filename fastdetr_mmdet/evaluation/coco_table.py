"""COCO's figures, for all classes together and for each."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

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


def evaluates_coco_boxes(metric: Any) -> bool:
    """Whether a metric is mmdet's CocoMetric with an annotation file, and evaluates boxes."""
    return getattr(metric, "_coco_api", None) is not None and "bbox" in getattr(
        metric, "metrics", ()
    )


def coco_table(
    metric: Any,
    images: Sequence[ImageResult],
    classes: Sequence[str],
    image_ids: Sequence[Any] | None = None,
) -> CocoTable:
    """Compute the figures as the metric does, with its IoU thresholds and limits.

    Args:
        metric: One that ``evaluates_coco_boxes``; it needs no results of its own.
        images: Detections and ground truth.
        classes: Names of the classes, by label.
        image_ids: Count the objects of these images only; None: of all.
    """
    coco = metric._coco_api
    ids = coco.get_cat_ids(cat_names=list(classes))  # by label, in the order of the file
    detections = [
        dict(image_id=image.image_id, bbox=_xywh(box), score=score, category_id=ids[label])
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
        evaluation.params.catIds = ids
        evaluation.params.imgIds = coco.get_img_ids() if image_ids is None else list(image_ids)
        evaluation.params.maxDets = list(metric.proposal_nums)
        evaluation.params.iouThrs = metric.iou_thrs
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"]  # (iou, recall, class, area, limit)
    position = {identity: n for n, identity in enumerate(evaluation.params.catIds)}  # sorted
    return CocoTable(
        overall={
            name: _figure(value) for name, value in zip(COLUMNS, evaluation.stats[:6], strict=True)
        },
        classes={
            name: _class_figures(precision[:, :, position[identity]], evaluation.params)
            for name, identity in zip(classes, ids, strict=True)
        },
        objects=objects,
    )


def _class_figures(precision: np.ndarray, params: Any) -> dict[str, float | None]:
    """Figures of one class, by the rules of pycocotools's summary.

    AP is taken at 100 detections, the other figures at the largest limit.

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
