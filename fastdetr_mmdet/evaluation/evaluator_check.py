"""Compares the images and objects of a data set with those of its COCO evaluator."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from mmdet.evaluation import CocoMetric, MultiDatasetsEvaluator
from mmengine.evaluator import BaseMetric, Evaluator

from ..datasets.check.sets import is_coco
from ..datasets.wrappers import leaf_datasets
from ..utils.cli import UserError


def check_evaluator(evaluator: Evaluator, config: Any, dataset: Any, phase: str) -> list[str]:
    """Refuse a ``CocoMetric`` whose annotation file is not about the images of the data set.

    The metric finds an image by its id alone: with another file, or with two data sets that use the
    same ids, it compares detections with the objects of other images. Where the data set has only
    some of the file's images (``indices``, ``filter_cfg``), the metric gets ``img_ids``, so that
    the objects of the other images do not count as missed.

    It reads no file: both sides are in memory.

    Returns:
        Warnings, one for each metric of only some of the images.

    Raises:
        ValueError: if images or objects differ.
    """
    configs = config.get("metrics", config) if isinstance(config, dict) else config
    configs = configs if isinstance(configs, (list, tuple)) else [configs]
    warnings = []
    several = isinstance(evaluator, MultiDatasetsEvaluator)  # each metric has a data set
    for index, metric in enumerate(evaluator.metrics):
        part = dataset.datasets[index] if several else dataset
        own = configs[index] if index < len(configs) else None
        file = own.get("ann_file") if isinstance(own, dict) else None
        if isinstance(metric, CocoMetric) and not metric.format_only:
            evaluated = f"{phase}_evaluator.ann_file={file}"
            warnings.append(_check_metric(metric, evaluated, part, phase))
    return [warning for warning in warnings if warning]


def _check_metric(metric: BaseMetric, evaluated: str, dataset: Any, phase: str) -> str:
    api = getattr(metric, "_coco_api", None)  # None: the ground truth is the data set's own
    leaves = [leaf for _, leaf in leaf_datasets(dataset)]
    if api is None or not all(hasattr(leaf, "get_data_info") for leaf in leaves):
        return ""
    files = dict.fromkeys(str(getattr(leaf, "ann_file", type(leaf).__name__)) for leaf in leaves)
    data = f"{phase}_dataloader.dataset ({', '.join(files)})"
    labels = None
    if all(is_coco(type(leaf)) for leaf in leaves):
        classes = leaves[0].metainfo["classes"]
        labels = {cat_id: n for n, cat_id in enumerate(api.get_cat_ids(cat_names=classes))}
    seen: set[Any] = set()
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        image = info["img_id"]
        if image in seen:
            raise UserError(
                f"{data} has two images of the id {image!r}, but {evaluated} finds images by their "
                "id. Give them different ids, or each data set a metric of its own "
                "(MultiDatasetsEvaluator)."
            )
        seen.add(image)
        if image not in api.imgs or _differs(info, api, labels):
            raise UserError(
                f"Image {image!r} of {data} is not the one that {evaluated} describes; name the "
                "data set's own annotation file there."
            )
    if len(seen) == len(api.imgs):
        return ""
    metric.img_ids = sorted(seen)
    return (
        f"{data} has {len(seen)} of the {len(api.imgs)} images of {evaluated}. The metrics are of "
        f"these {len(seen)} images."
    )


def _differs(info: dict, api: Any, labels: dict[int, int] | None) -> bool:
    """Whether an image of the data set and the evaluator's of the same id have other contents.

    Args:
        info: Of the data set.
        api: Of the evaluator.
        labels: By the evaluator's category ids; None if the data set reads its file in its own way,
            so that objects cannot be compared.
    """
    if labels is None:
        return False
    image = api.imgs[info["img_id"]]
    if (info["width"], info["height"]) != (image["width"], image["height"]):
        return True
    if not info["instances"]:
        return PurePath(info["img_path"]).stem != PurePath(image["file_name"]).stem
    annotations = api.imgToAnns[info["img_id"]]
    # A subset and not the same: mmdet's data set leaves boxes of no area out.
    boxes = [(labels.get(a["category_id"]), *a["bbox"]) for a in annotations]
    expected = {(label, x, y, x + w, y + h) for label, x, y, w, h in boxes}
    return any((i["bbox_label"], *i["bbox"]) not in expected for i in info["instances"])
