"""Random predictions and objects, and the costs of DETR written out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from fastdetr_mmdet.structures.boxes import cxcywh_to_xyxy
from fastdetr_mmdet.structures.targets import Targets


def make_targets(counts: Sequence[int], num_classes: int = 5, seed: int = 0) -> Targets:
    """Random objects in images of different sizes."""
    generator = torch.Generator().manual_seed(seed)
    total, bs = sum(counts), len(counts)
    boxes = torch.rand(total, 4, generator=generator)
    boxes[:, :2] = 0.25 + 0.5 * boxes[:, :2]
    boxes[:, 2:] = 0.05 + 0.4 * boxes[:, 2:]
    scales = torch.tensor([[96.0 + 7 * i, 64.0 + 5 * i] * 2 for i in range(bs)])
    return Targets(
        labels=torch.randint(num_classes, (total,), generator=generator),
        boxes=boxes,
        counts=tuple(counts),
        scales=scales,
        image_ids=tuple(f"id {7 + i}, file {i}.jpg" for i in range(bs)),
    )


def make_predictions(
    num_layers: int, bs: int, num_queries: int, num_classes: int = 5, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Random logits and normalised (cx, cy, w, h)."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_layers, bs, num_queries)
    logits = torch.randn(*shape, num_classes, generator=generator)
    boxes = torch.rand(*shape, 4, generator=generator) * 0.8 + 0.1
    return logits, boxes


def objects_of(targets: Targets, image: int) -> slice:
    """Slice of an image's objects."""
    start = sum(targets.counts[:image])
    return slice(start, start + targets.counts[image])


def instances(
    logits: Tensor, boxes: Tensor, targets: Targets, layer: int, image: int
) -> tuple[InstanceData, InstanceData, dict]:
    """Inputs of mmdet's assigners, in pixel corners."""
    own, scale = objects_of(targets, image), targets.scales[image]
    predictions = InstanceData(
        scores=logits[layer, image], bboxes=cxcywh_to_xyxy(boxes[layer, image]) * scale
    )
    objects = InstanceData(
        labels=targets.labels[own], bboxes=cxcywh_to_xyxy(targets.boxes[own]) * scale
    )
    w, h = scale[:2].tolist()
    return predictions, objects, dict(img_shape=(h, w), img_id=7 + image)


def giou(first: Tensor, second: Tensor) -> Tensor:
    """Generalised IoU of (..., 4) corners with (..., 4) corners."""
    width_height = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(
        first[..., :2], second[..., :2]
    )
    hull = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(
        first[..., :2], second[..., :2]
    )
    intersection = width_height.clamp(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(-1) for box in (first, second)]
    union = areas[0] + areas[1] - intersection
    return intersection / union - (hull.prod(-1) - union) / hull.prod(-1)


def official_cost(logits: Tensor, boxes: Tensor, labels: Tensor, wanted: Tensor) -> Tensor:
    """The official codes' matching cost of one layer and image, (num_queries, objects)."""
    p = logits.sigmoid()
    positive = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log()
    negative = 0.75 * p**2 * -(1 - p + 1e-8).log()
    classes = positive[:, labels] - negative[:, labels]
    distance = (boxes[:, None] - wanted[None]).abs().sum(-1)
    overlap = giou(cxcywh_to_xyxy(boxes)[:, None], cxcywh_to_xyxy(wanted)[None])
    return 2 * classes + 5 * distance - 2 * overlap


def loss_sums(
    scores: Tensor,
    boxes: Tensor,
    labels: Tensor,
    wanted: Tensor,
    scale: Tensor,
    pairs: Sequence[tuple[int, int]],
) -> Tensor:
    """Focal, L1 and GIoU loss, weights 2, 5 and 2, of an image's (query, object) pairs."""
    target = torch.zeros_like(scores)
    for query, column in pairs:
        target[query, labels[column]] = 1
    p = scores.sigmoid()
    as_object, as_background = -0.25 * (1 - p) ** 2 * p.log(), -0.75 * p**2 * (1 - p).log()
    focal = (target * as_object + (1 - target) * as_background).sum()
    corners, aim = cxcywh_to_xyxy(boxes) * scale, cxcywh_to_xyxy(wanted) * scale
    l1 = sum((boxes[q] - wanted[c]).abs().sum() for q, c in pairs)
    overlap = sum(1 - giou(corners[q], aim[c]) for q, c in pairs)
    return torch.stack([2 * focal, 5 * torch.as_tensor(l1), 2 * torch.as_tensor(overlap)])
