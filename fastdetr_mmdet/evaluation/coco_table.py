"""COCO metrics, over all classes and per class."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from .results import ImageResult

COLUMNS = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large")
METRICS = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")  # mmdet's names, same order


@dataclass(frozen=True)
class Curve:
    """Precision and recall by score threshold, at the metric's lowest IoU threshold (0.5).

    Shape:
        scores, precision, recall: (n,), one entry per distinct score, descending
    """

    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall, (n,)."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / np.where(total, total, 1)

    @property
    def best(self) -> list[float]:
        """Score threshold with the highest F1, and its F1, precision and recall."""
        i = int(self.f1.argmax())
        return [float(x[i]) for x in (self.scores, self.f1, self.precision, self.recall)]


@dataclass(frozen=True)
class CocoTable:
    """Metrics in [0, 1] by the names of ``COLUMNS``; None without objects.

    Args:
        overall: Metrics over all classes.
        classes: Metrics of each class by name, in the dataset's order.
        objects: Number of objects of each class in the evaluated images.
        pooled: Curve over all classes; None without boxes or objects.
        curves: Curve of each class with boxes and objects.
    """

    overall: dict[str, float | None]
    classes: dict[str, dict[str, float | None]]
    objects: dict[str, int]
    pooled: Curve | None = None
    curves: dict[str, Curve] = field(default_factory=dict)


def evaluates_coco_boxes(metric: Any) -> bool:
    """Whether a metric is mmdet's CocoMetric with an annotation file, and evaluates boxes."""
    has_file = getattr(metric, "_coco_api", None) is not None
    return has_file and "bbox" in getattr(metric, "metrics", ())


def coco_table(
    metric: Any,
    images: Sequence[ImageResult],
    classes: Sequence[str],
    image_ids: Sequence[Any] | None = None,
) -> CocoTable:
    """Compute the metrics with the IoU thresholds and limits of an mmdet metric.

    Args:
        metric: A metric that ``evaluates_coco_boxes``; its own results are not used.
        images: Detections and ground truth.
        classes: Names of the classes, by label.
        image_ids: Images whose objects count; None: all.
    """
    objects = _count_objects(images, classes)
    evaluation = run_coco(metric, images, classes, image_ids)
    if evaluation is None:
        nothing = {name: 0.0 if sum(objects.values()) else None for name in COLUMNS}
        per_class = {name: {c: 0.0 if objects[name] else None for c in COLUMNS} for name in classes}
        return CocoTable(nothing, per_class, objects)
    overall = _figures(evaluation)
    parameters, precision = evaluation.params, evaluation.eval["precision"]
    size, areas = len(parameters.imgIds), len(parameters.areaRng)
    figures, matched = {}, {}
    for place, identity in enumerate(parameters.catIds):  # sorted by pycocotools
        # (iou, recall, class, area, limit)
        evaluation.eval["precision"] = precision[:, :, [place]]
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.summarize()
        figures[identity] = _figures(evaluation)
        # by class, area and image; the first area has all sizes
        matched[identity] = evaluation.evalImgs[place * areas * size :][:size]
    ids = dict(zip(classes, metric._coco_api.get_cat_ids(cat_names=list(classes)), strict=True))
    curves = {name: _curve(matched[identity]) for name, identity in ids.items()}
    return CocoTable(
        overall,
        {name: figures[identity] for name, identity in ids.items()},
        objects,
        _curve(itertools.chain.from_iterable(matched.values())),
        {name: curve for name, curve in curves.items() if curve is not None},
    )


def _curve(images: Iterable[dict | None]) -> Curve | None:
    """Curve at the metric's lowest IoU threshold; None without boxes or objects."""
    found = [image for image in images if image is not None]
    objects = sum(int((~np.array(image["gtIgnore"], bool)).sum()) for image in found)
    counted = [~np.array(image["dtIgnore"][0], bool) for image in found]
    pairs = [*zip(found, counted, strict=True)]
    scores = np.concatenate([[], *(np.array(image["dtScores"])[kept] for image, kept in pairs)])
    if not objects or not len(scores):
        return None
    matches = np.concatenate([np.array(image["dtMatches"][0])[kept] > 0 for image, kept in pairs])
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], np.cumsum(matches[order])
    last = np.append(scores[1:] < scores[:-1], True)  # last box of each score
    number = np.arange(1, len(scores) + 1)
    return Curve(scores[last], (right / number)[last], (right / objects)[last])


def run_coco(
    metric: Any,
    images: Sequence[ImageResult],
    classes: Sequence[str],
    image_ids: Sequence[Any] | None = None,
    class_agnostic: bool = False,
) -> COCOeval | None:
    """Evaluate with pycocotools and the metric's settings, up to the summary.

    Args:
        metric, images, classes, image_ids: As for ``coco_table``.
        class_agnostic: Whether detections may match objects of other classes.

    Returns:
        None without detections.
    """
    coco = metric._coco_api
    ids = coco.get_cat_ids(cat_names=list(classes))  # index: label
    detections = [
        dict(image_id=image.image_id, bbox=[x1, y1, x2 - x1, y2 - y1], score=score,
             category_id=ids[label])
        for image in images
        for (x1, y1, x2, y2), label, score in zip(
            image.boxes.tolist(), image.labels.tolist(), image.scores.tolist(), strict=True
        )
    ]  # fmt: skip
    if not detections:
        return None
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation = COCOeval(coco, coco.loadRes(detections), "bbox")
        evaluation.params.catIds = ids
        evaluation.params.useCats = int(not class_agnostic)
        evaluation.params.imgIds = coco.get_img_ids() if image_ids is None else list(image_ids)
        evaluation.params.maxDets = list(metric.proposal_nums)
        evaluation.params.iouThrs = metric.iou_thrs
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _figures(evaluation: COCOeval) -> dict[str, float | None]:
    """AP values of the summary; pycocotools' -1 or NaN (no objects) become None."""
    values = evaluation.stats[: len(COLUMNS)].tolist()
    return {n: v if v >= 0 else None for n, v in zip(COLUMNS, values, strict=True)}


def _count_objects(images: Sequence[ImageResult], classes: Sequence[str]) -> dict[str, int]:
    labels = [image.true_labels[~image.crowd] for image in images]
    counts = np.bincount(np.concatenate([[], *labels]).astype(int), minlength=len(classes))
    return dict(zip(classes, counts.tolist(), strict=False))
