"""Faults in the numbers of a training, at steps counted from 1.

Each is a function of the runner and the steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor

from fastdetr_mmdet.engine.hooks.changes import unwrap

Fault = Callable[..., None]


def in_loss(name: str, factor: float = math.nan) -> Fault:
    """Fault in a loss term; an unknown term becomes a constant without gradient."""

    def install(run: Any, *steps: int) -> None:
        def changed(*args: Any) -> dict[str, Tensor]:
            losses = loss(*args)
            if run.iter + 1 in steps:
                losses[name] = losses.get(name, torch.ones(())) * factor
            return losses

        model = unwrap(run.model)
        loss, model.loss = model.loss, changed

    return install


def in_data(change: Callable[[Tensor, list], Any]) -> Fault:
    """Fault in a batch after the preprocessor; `change` gets inputs and samples."""

    def install(run: Any, *steps: int) -> None:
        def changed(data: Any, training: bool = False) -> Any:
            data = prepare(data, training)
            if training and run.iter + 1 in steps:
                change(data["inputs"], data["data_samples"])
            return data

        preprocessor = unwrap(run.model).data_preprocessor
        prepare, preprocessor.forward = preprocessor.forward, changed

    return install


def in_gradient(prefix: str, factor: float = math.nan) -> Fault:
    """Fault in gradients of parameters with this prefix."""

    def install(run: Any, *steps: int) -> None:
        for name, parameter in run.model.named_parameters():
            if name.startswith(prefix):
                parameter.register_hook(lambda g: g * factor if run.iter + 1 in steps else None)

    return install


def in_pixels(run: Any, step: int) -> None:
    """Fault in the last image from the data loader."""

    def change(runner: Any, batch_idx: int, data_batch: Any) -> None:
        if batch_idx + 1 == step:
            data_batch["inputs"][-1] = data_batch["inputs"][-1].float()
            data_batch["inputs"][-1][0, 5, 5] = math.nan

    hook = Hook()
    hook.before_train_iter = change
    run.register_hook(hook)


def _nan_pixels(inputs: Tensor, samples: list) -> None:
    inputs[:, 0, 5, 5] = math.nan


def _nan_pixel_of_the_last_with_objects(inputs: Tensor, samples: list) -> None:
    inputs[[n for n, s in enumerate(samples) if len(s.gt_instances)][-1], 0, 5, 5] = math.nan


def _wrong_labels(inputs: Tensor, samples: list) -> None:
    for sample in samples:
        sample.gt_instances.labels[:] = 6


IMAGES = in_data(_nan_pixels)
ONE_IMAGE = in_data(_nan_pixel_of_the_last_with_objects)
INFINITE_IMAGE = in_data(lambda inputs, samples: inputs[0].fill_(math.inf))
LABELS = in_data(_wrong_labels)
