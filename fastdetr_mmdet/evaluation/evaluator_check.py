"""Compare images and objects of a dataset and its COCO evaluator."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from mmdet.evaluation import CocoMetric, MultiDatasetsEvaluator
from mmengine.evaluator import BaseMetric, Evaluator

from ..datasets.check.sets import is_coco
from ..datasets.wrappers import leaf_datasets
from ..utils.cli import UserError


def check_evaluator(evaluator: Evaluator, config: Any, dataset: Any, phase: str) -> list[str]:
    """Refuse a ``CocoMetric`` whose annotation file describes other images than the dataset.

    The metric finds images only by id: with a wrong file, or with two datasets that share ids, it
    compares detections with objects of other images. If the dataset has only some of the file's
    images (``indices``, ``filter_cfg``), the metric gets ``img_ids``, so that objects of the other
    images do not count as missed.

    It compares data in memory and reads no file.

    Returns:
        A warning for each metric on a part of the images.

    Raises:
        ValueError: if images or objects differ.
    """
    configs = config.get("metrics", config) if isinstance(config, dict) else config
    configs = configs if isinstance(configs, (list, tuple)) else [configs]
    warnings = []
    several = isinstance(evaluator, MultiDatasetsEvaluator)  # one dataset per metric
    for index, metric in enumerate(evaluator.metrics):
        part = dataset.datasets[index] if several else dataset
        own = configs[index] if index < len(configs) else None
        file = own.get("ann_file") if isinstance(own, dict) else None
        if isinstance(metric, CocoMetric) and not metric.format_only:
            evaluated = f"{phase}_evaluator.ann_file={file}"
            warnings.append(_check_metric(metric, evaluated, part, phase))
    return [warning for warning in warnings if warning]


def _check_metric(metric: BaseMetric, evaluated: str, dataset: Any, phase: str) -> str:
    api = getattr(metric, "_coco_api", None)  # None: ground truth from the dataset
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
                f"{data} has two images with id {image!r}, but {evaluated} finds images by id. "
                "Give them different ids, or use one metric per dataset (MultiDatasetsEvaluator)."
            )
        seen.add(image)
        if image not in api.imgs or _differs(info, api, labels):
            raise UserError(
                f"Image {image!r} of {data} differs from the one in {evaluated}; set the dataset's "
                "annotation file there."
            )
    if len(seen) == len(api.imgs):
        return ""
    metric.img_ids = sorted(seen)
    return (
        f"{data} has {len(seen)} of the {len(api.imgs)} images of {evaluated}. Metrics use these "
        f"{len(seen)} images only."
    )


def _differs(info: dict, api: Any, labels: dict[int, int] | None) -> bool:
    """Whether the dataset's and the evaluator's image with the same id differ.

    Args:
        info: The dataset's information on the image.
        api: The evaluator's COCO API.
        labels: Labels by the evaluator's category ids; None if a custom dataset's objects cannot be
            compared.
    """
    if labels is None:
        return False
    image = api.imgs[info["img_id"]]
    if (info["width"], info["height"]) != (image["width"], image["height"]):
        return True
    if not info["instances"]:
        return PurePath(info["img_path"]).stem != PurePath(image["file_name"]).stem
    annotations = api.imgToAnns[info["img_id"]]
    # A subset, because mmdet's dataset drops boxes without area.
    boxes = [(labels.get(a["category_id"]), *a["bbox"]) for a in annotations]
    expected = {(label, x, y, x + w, y + h) for label, x, y, w, h in boxes}
    return any((i["bbox_label"], *i["bbox"]) not in expected for i in info["instances"])
