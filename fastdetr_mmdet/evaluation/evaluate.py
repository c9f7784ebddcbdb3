"""Evaluate a checkpoint on the validation set of its config."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import nn

from ..checkpoints.files import read_content
from ..checkpoints.loading import fill
from ..datasets.check.files import locate
from ..datasets.check.sets import checked_sets
from ..datasets.wrappers import use_first_metainfo
from ..utils.cli import UserError
from .coco_table import CocoTable, coco_table, evaluates_coco_boxes
from .evaluator_check import check_evaluator
from .results import ImageResult

Progress = Callable[[str], None]
_EVERY = 5.0  # seconds between two progress messages


@dataclass
class Evaluation:
    """Results of an evaluation.

    Args:
        checkpoint: The file.
        dataset: Name of the annotations; equal for runs with the same images.
        classes: Names of the classes.
        images: Results, in the dataset's order.
        of_images: Number of images in the dataset.
        metrics: Metrics of the config's evaluator; empty if there is a table.
        table: COCO metrics; None if the evaluator is not COCO's.
        parameters: Number of the model's parameters.
        model: The model, until the report has drawn its attention.
    """

    checkpoint: Path
    dataset: str
    classes: tuple[str, ...]
    images: list[ImageResult]
    of_images: int
    metrics: dict[str, float]
    table: CocoTable | None
    parameters: int
    model: nn.Module | None = field(default=None, repr=False)


@dataclass(frozen=True)
class EvaluationSet:
    """Images, ground truth and evaluator of a config's validation or test loop.

    Args:
        loader: Data loader without workers.
        evaluator: The config's evaluator.
        infos: The dataset's information on each image, by image id, in order.
        partial: Whether the evaluator's annotation file has more images.
    """

    loader: Any
    evaluator: Evaluator
    infos: dict[Any, dict]
    partial: bool

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(map(str, self.loader.dataset.metainfo.get("classes") or ()))


def open_set(config: Config, splits: Sequence[str], progress: Progress) -> EvaluationSet:
    """Build the first of the splits that a config has.

    Args:
        config: mmdet config.
        splits: "val", "test", in order of preference.
        progress: Called with warnings, for example on images that the evaluator leaves out.

    Raises:
        UserError: if no split has an evaluator, the evaluator's annotation file describes other
            images, or an image is missing or outside of the dataset's folder.
    """
    init_default_scope(config.get("default_scope", "mmdet"))
    split = next((s for s in splits if config.get(f"{s}_dataloader")), None)
    if split is None or not config.get(f"{split}_evaluator"):
        raise UserError("The config has no validation set with an evaluator.")
    with redirect_stdout(io.StringIO()):  # pycocotools prints
        options = dict(config[f"{split}_dataloader"], num_workers=0, persistent_workers=False)
        for key in ("prefetch_factor", "timeout"):  # only for worker processes
            options.pop(key, None)
        loader = Runner.build_dataloader(options, seed=0)
        evaluator = Evaluator(config[f"{split}_evaluator"])
    dataset = loader.dataset
    use_first_metainfo(dataset)
    try:
        partial = check_evaluator(evaluator, config[f"{split}_evaluator"], dataset, split)
    except ValueError as error:
        raise UserError(str(error)) from error
    for warning in partial:
        progress(warning)
    infos = {info["img_id"]: info for info in map(dataset.get_data_info, range(len(dataset)))}
    _check_image_paths(dataset, [info["img_path"] for info in infos.values()])
    evaluator.dataset_meta = dataset.metainfo
    return EvaluationSet(loader, evaluator, infos, bool(partial))


def evaluate(
    config: Config,
    checkpoint: Path,
    max_images: int | None = None,
    device: str | None = None,
    progress: Progress = lambda text: None,
) -> Evaluation:
    """Evaluate a checkpoint on the validation set of a config, with the config's evaluator.

    Args:
        config: mmdet config.
        checkpoint: Read as data only; a file that would run code is refused.
        max_images: Number of images to evaluate, from the first.
        device: Default: a GPU if available.
        progress: Called with progress messages.

    Raises:
        CheckpointRefusedError: if the checkpoint is not plain data.
        UserError: if there is no validation set, an image is missing or outside of the dataset's
            folder, or the checkpoint is damaged or does not fit the config.
    """
    data = open_set(config, ("val", "test"), progress)
    dataset, evaluator, infos = data.loader.dataset, data.evaluator, data.infos
    model: Any = _load_model(config, checkpoint, device)
    model.dataset_meta = dataset.metainfo  # as in init_detector; for the viewer
    coco = next(filter(evaluates_coco_boxes, evaluator.metrics), None)

    images: list[ImageResult] = []
    told = time.monotonic()
    wanted = min(max_images or len(infos), len(infos))
    for batch in data.loader:
        with torch.no_grad():
            samples = model.test_step(batch)
        samples = samples[: wanted - len(images)]
        images += [image_result(s.pred_instances, infos[s.img_id]) for s in samples]
        if coco is None:
            evaluator.process(data_samples=samples, data_batch=batch)
        if len(images) == wanted or time.monotonic() - told > _EVERY:
            told = time.monotonic()
            progress(f"{len(images)} of {wanted} images")
        if len(images) == wanted:
            break
    whole = wanted == len(infos) and not data.partial
    chosen = None if whole else [image.image_id for image in images]
    metrics, table = {}, None
    if coco is None:
        metrics = _run_evaluator(evaluator, chosen, len(images))
        coco = next(filter(evaluates_coco_boxes, evaluator.metrics), None)  # None without ann_file
    if coco is not None:
        metrics, table = {}, coco_table(coco, images, data.classes, chosen)
    return Evaluation(
        checkpoint=checkpoint,
        dataset=str(getattr(dataset, "ann_file", type(dataset).__name__)),
        classes=data.classes,
        images=images,
        of_images=len(infos),
        metrics=metrics,
        table=table,
        parameters=sum(p.numel() for p in model.parameters()),
        model=model,
    )


def _run_evaluator(evaluator: Evaluator, chosen: list[Any] | None, size: int) -> dict[str, float]:
    for metric in evaluator.metrics:
        if chosen is not None and hasattr(metric, "img_ids"):
            metric.img_ids = chosen
    with redirect_stdout(io.StringIO()):
        measured = evaluator.evaluate(size)
    numbers = (int, float, np.number)
    return {name: float(value) for name, value in measured.items() if isinstance(value, numbers)}


def _load_model(config: Config, checkpoint: Path, device: str | None) -> nn.Module:
    model: Any = revert_sync_batchnorm(MODELS.build(config.model))
    # Strict, because metrics of a partly loaded model would be silently wrong.
    found = fill(model, read_content(checkpoint), unknown=True)
    if found:
        raise UserError(f"The weights of {checkpoint.name} do not fit its config: {found}.")
    model.cfg = config  # read by mmdet's inferencers
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()


def image_result(found: InstanceData, info: dict) -> ImageResult:
    """Join detections and the dataset's information on their image."""
    found = found.cpu()
    order = torch.argsort(found.scores, descending=True, stable=True)
    objects = info.get("instances", ())
    return ImageResult(
        image_id=info["img_id"],
        path=info["img_path"],
        true_boxes=np.array([o["bbox"] for o in objects], dtype=float).reshape(-1, 4),
        true_labels=np.array([o["bbox_label"] for o in objects], dtype=int),
        crowd=np.array([bool(o.get("ignore_flag", 0)) for o in objects], dtype=bool),
        boxes=found.bboxes[order].numpy().astype(float),
        labels=found.labels[order].numpy(),
        scores=found.scores[order].numpy().astype(float),
    )


def _check_image_paths(dataset: Any, paths: Sequence[str]) -> None:
    """Refuse a dataset with image paths outside of its folder, before opening any file.

    Remote images are not checked, nor datasets in other formats than COCO's without a folder.
    """
    folders = []
    for checked in checked_sets(dataset, evaluated=True):
        if checked.images is None:
            return
        folders += [checked.images, *([checked.root] if checked.root else [])]
    root = getattr(dataset, "data_root", None)
    if not folders and root and "://" not in root:
        folders = [root]
    if not folders:
        return
    # not normalised, because `..` after a link may lead elsewhere
    absolute = [os.path.join(os.getcwd(), path) for path in paths]
    in_folders = zip(*(locate(absolute, folder) for folder in folders), strict=True)
    wrong = [  # an image outside of one folder may be in another
        f"{path}: {found[0][1]}"
        for path, found in zip(paths, in_folders, strict=True)
        if all(problem for problem, _ in found)
    ]
    if wrong:
        count = "1 image is" if len(wrong) == 1 else f"{len(wrong)} images are"
        raise UserError(
            f"{count} missing or outside of the folder of the validation set; none was opened "
            f"({wrong[0]}). Set the folder by --cfg-options data_root=... "
            "(python -m fastdetr_mmdet check lists all such images)."
        )
