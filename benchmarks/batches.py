"""Random images with random objects, in mmdet's form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """A preprocessed batch.

    Shape:
        images: (bs, 3, H, W), normalised
        samples: one per image, with ``gt_instances`` in pixels
    """

    images: Tensor
    samples: list[DetDataSample]


def make_batch(
    batch_size: int,
    image_size: tuple[int, int],
    num_objects: int = 7,
    device: str = "cpu",
    seed: int = 0,
    num_classes: int = 80,
) -> Batch:
    """Make noise images of one size with a number of boxes each.

    COCO has 7 objects per image on average. Sides are 5 to 50 % of the image's.
    """
    generator = torch.Generator().manual_seed(seed)
    h, w = image_size
    images = torch.randn(batch_size, 3, h, w, generator=generator)
    samples = []
    for index in range(batch_size):
        centres = torch.rand(num_objects, 2, generator=generator) * 0.5 + 0.25
        sides = torch.rand(num_objects, 2, generator=generator) * 0.45 + 0.05
        boxes = torch.cat([centres - sides / 2, centres + sides / 2], dim=1).clamp(0, 1)
        objects = InstanceData(
            bboxes=(boxes * torch.tensor([w, h, w, h])).to(device),
            labels=torch.randint(num_classes, (num_objects,), generator=generator).to(device),
        )
        meta = dict(
            img_id=index,
            img_shape=(h, w),
            ori_shape=(h, w),
            batch_input_shape=(h, w),
            pad_shape=(h, w),
            scale_factor=(1.0, 1.0),
        )
        samples.append(DetDataSample(metainfo=meta, gt_instances=objects))
    return Batch(images.to(device), samples)
