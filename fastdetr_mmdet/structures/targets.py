"""Ground truth of a batch in the form that matching and losses use: one concatenated set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from .boxes import xyxy_to_cxcywh


@dataclass(frozen=True)
class Targets:
    """Objects of all images of a batch, one after the other.

    Shape:
        labels: (num_objects,) long, class indices.
        boxes: (num_objects, 4) float32, normalised (cx, cy, w, h).
        counts: number of objects of each image; host data.
        scales: (bs, 4) float32, (w, h, w, h) of each un-padded image, in pixels.
        image_ids: name of each image, for messages.
    """

    labels: Tensor
    boxes: Tensor
    counts: tuple[int, ...]
    scales: Tensor
    image_ids: tuple[str, ...]

    @classmethod
    def from_data_samples(cls, data_samples: Sequence, device: torch.device | str) -> Targets:
        """Collect ``gt_instances`` (pixel xyxy boxes) of mmdet's data samples."""
        sizes = [sample.metainfo["img_shape"][:2] for sample in data_samples]
        labels = [sample.gt_instances.labels for sample in data_samples]
        counts = [len(x) for x in labels]
        per_image = [[w, h, w, h] for h, w in sizes]
        per_object = [size for size, n in zip(per_image, counts, strict=True) for _ in range(n)]
        # One copy to the device for both.
        both = torch.tensor(per_image + per_object, dtype=torch.float32).view(-1, 4)
        scales, object_scales = both.to(device, non_blocking=True).split([len(sizes), sum(counts)])
        corners = torch.cat([get_box_tensor(s.gt_instances.bboxes) for s in data_samples]).float()
        return cls(
            labels=torch.cat(labels),
            boxes=xyxy_to_cxcywh(corners) / object_scales,
            counts=tuple(counts),
            scales=scales,
            image_ids=tuple(name_image(sample.metainfo) for sample in data_samples),
        )

    def repeated(self, times: int) -> tuple[Targets, Tensor]:
        """Repeat every object in its image; also return the original index of each copy."""
        index = torch.arange(self.num_objects, device=self.labels.device)
        index = torch.cat([own.repeat(times) for own in index.split(self.counts)])
        counts = tuple(count * times for count in self.counts)
        return replace(
            self, labels=self.labels[index], boxes=self.boxes[index], counts=counts
        ), index

    @property
    def num_objects(self) -> int:
        """Number of objects in the batch."""
        return sum(self.counts)


def name_image(meta: dict) -> str:
    """Name an image in messages by its id and path, as far as they are known."""
    parts = [
        f"{label} {meta[key]}"
        for key, label in (("img_id", "id"), ("img_path", "file"))
        if meta.get(key) is not None
    ]
    return ", ".join(parts) or "id unknown"
