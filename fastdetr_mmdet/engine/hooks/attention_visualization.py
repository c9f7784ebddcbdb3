"""Contact sheets of validation images, in TensorBoard, W&B or other backends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from mmcv.image import imresize
from mmdet.registry import HOOKS
from mmengine.dataset import pseudo_collate
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from torch.distributed.fsdp import FullyShardedDataParallel

from .changes import unwrap


@HOOKS.register_module()
class AttentionVisualizationHook(Hook):
    """Draws what the detector attends to, on the same few images, every few validations.

    Paper: none.

    The pictures are those of ``python -m fastdetr_mmdet visualize`` (docs/visualization.md) and go
    to all ``vis_backends`` as ``attention_0``, ``attention_1``, ... with the epoch as step. The
    model is the validated one (with ``EMAHook``, the averaged one) and does not change; the images
    are drawn as the validation pipeline makes them. With several processes, rank 0 draws.

    Args:
        interval: Number of validations per drawing; the first validation is always drawn.
        num_images: Number of images, from the start of the validation set.
        top_k: Number of queries per image, by class score.
        layer: Decoder layer to draw, counted from 1; None: the last.

    Raises:
        ValueError: if interval, num_images or top_k is below 1; before training, if the model has
            no such layer.
        TypeError: before training, if the model is not a FastDETR, or is sharded (FSDP).
    """

    # before EMAHook (NORMAL) restores the weights of training
    priority = "ABOVE_NORMAL"

    def __init__(
        self, interval: int = 1, num_images: int = 4, top_k: int = 5, layer: int | None = None
    ) -> None:
        for name, value in (("interval", interval), ("num_images", num_images), ("top_k", top_k)):
            if value < 1:
                raise ValueError(f"AttentionVisualizationHook: {name}={value} must be at least 1.")
        self.interval, self.num_images = interval, num_images
        self.top_k, self.layer = top_k, layer

    def before_train(self, runner: Runner) -> None:
        """Refuse a model that cannot be drawn before the first epoch."""
        from ...visualization.recording import find_decoder

        if isinstance(runner.model, FullyShardedDataParallel):
            raise TypeError(
                "AttentionVisualizationHook draws in one process, which FullyShardedDataParallel "
                "does not allow. Leave the hook out, or train without FullFSDPStrategy."
            )
        count = len(find_decoder(unwrap(runner.model)).layers)
        if self.layer is not None and not 1 <= self.layer <= count:
            raise ValueError(
                f"AttentionVisualizationHook: layer={self.layer}, but the model's decoder has "
                f"layers 1 to {count}."
            )

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Draw after every ``interval``-th validation, counted across resumes."""
        loop, number = runner._train_loop, 0  # number of validations before this one
        if isinstance(loop, BaseLoop):  # not validation without training
            done = loop.epoch if isinstance(loop, EpochBasedTrainLoop) else loop.iter
            number = (done - 1) // loop.val_interval - (loop.val_begin - 1) // loop.val_interval
        if number % self.interval == 0:
            self._draw(runner)

    @master_only
    def _draw(self, runner: Runner) -> None:
        from ...visualization import draw_contact_sheet, inspect_batch

        model: Any = unwrap(runner.model)
        dataset = runner.val_dataloader.dataset
        classes = tuple(getattr(dataset, "metainfo", {}).get("classes") or ())
        for index in range(min(self.num_images, len(dataset))):
            data = dataset[index]
            batch = pseudo_collate([data])
            (inspected,) = inspect_batch(model, batch, [_picture(data)], self.top_k)
            # A model in training has no class names; the dataset has them.
            inspected = replace(inspected, classes=inspected.classes or classes)
            sheet = draw_contact_sheet(inspected, self.layer)
            runner.visualizer.add_image(f"attention_{index}", sheet, step=runner.epoch)


def _picture(data: dict) -> np.ndarray:
    """Packed image as (h, w, 3) uint8 RGB in the original size."""
    packed = data["inputs"].permute(1, 2, 0).cpu().numpy()[..., ::-1]  # BGR before normalisation
    pixels = np.ascontiguousarray(packed.clip(0, 255).astype(np.uint8))
    h, w = data["data_samples"].metainfo.get("ori_shape", pixels.shape)[:2]
    return imresize(pixels, (w, h))
