"""Functions to measure: inference, a training step, and its criterion alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from mmdet.models.dense_heads import DINOHead
from mmengine.optim import build_optim_wrapper
from mmengine.structures import InstanceData
from torch import Tensor

from fastdetr_mmdet.structures.targets import Targets

from .batches import Batch
from .cases import Side

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def precision(device: str, dtype: str) -> AbstractContextManager:
    """Autocast to the type; no change for fp32."""
    if dtype == "fp32":
        return nullcontext()
    return torch.autocast(device.split(":")[0], DTYPES[dtype])


def inference(side: Side, batch: Batch, device: str, dtype: str) -> Callable[[], Any]:
    """Detections of a batch, boxes in pixels."""
    side.model.eval()

    def call() -> Any:
        side.model.eval()
        with torch.no_grad(), precision(device, dtype):
            return side.model(batch.images, batch.samples, mode="predict")

    return call


def training_step(side: Side, batch: Batch, device: str, dtype: str) -> Callable[[], Any]:
    """Forward, loss, backward, clipping and optimizer of the side's config."""
    wrapper = build_optim_wrapper(side.model, side.config.optim_wrapper)
    scaler = torch.amp.GradScaler(device) if dtype == "fp16" and device != "cpu" else None
    clip = side.config.optim_wrapper.get("clip_grad") or {}
    trained = [p for p in side.model.parameters() if p.requires_grad]

    def call() -> None:
        side.model.train()
        with precision(device, dtype):
            losses = side.model(batch.images, batch.samples, mode="loss")
            total, _ = side.model.parse_losses(losses)
        optimizer = wrapper.optimizer
        if scaler is None:
            total.backward()
        else:
            scaler.scale(total).backward()
            scaler.unscale_(optimizer)
        if clip:
            torch.nn.utils.clip_grad_norm_(trained, **clip)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad()

    return call


def predictions(side: Side, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits and normalised boxes of all layers, detached, requiring gradients."""
    side.model.eval()
    with torch.no_grad():
        cls_scores, boxes = side.model(batch.images, batch.samples, mode="tensor")[:2]
    return cls_scores.float().requires_grad_(), boxes.float().requires_grad_()


def criterion(side: Side, batch: Batch, cls_scores: Tensor, boxes: Tensor) -> Callable[[], Any]:
    """Matching, losses of all decoder layers, and gradients of the predictions."""
    head: Any = side.model.bbox_head
    metas = [sample.metainfo for sample in batch.samples]
    objects: list[InstanceData] = [sample.gt_instances for sample in batch.samples]
    ours = type(head).__module__.startswith("fastdetr_mmdet")

    def call() -> dict[str, Tensor]:
        if ours:
            targets = Targets.from_data_samples(batch.samples, cls_scores.device)
            per_layer = head.loss_by_feat(cls_scores, boxes, targets)
            total = sum(values.sum() for values in per_layer.values())
            losses = {name: values[-1] for name, values in per_layer.items()}
        else:
            extra = (None, None) if hasattr(head, "as_two_stage") else ()
            # without DINO's denoising queries, which are not among the predictions
            own = super(DINOHead, head) if isinstance(head, DINOHead) else head
            losses = own.loss_by_feat(cls_scores, boxes, *extra, objects, metas)
            total = sum(losses.values())
        torch.autograd.grad(total, (cls_scores, boxes))
        return losses

    return call
