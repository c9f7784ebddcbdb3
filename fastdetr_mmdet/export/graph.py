"""Graph of an exported file: from a batch of images to detections."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..models.heads.top_k import top_k
from ..structures import Memory
from ..structures.padding import masks_of


class DetectionGraph(nn.Module):
    """A ``FastDETR`` as a function of an image batch, without data samples.

    Computes the same as ``FastDETR.predict``. Without ``image_sizes`` images fill the batch and
    nothing is masked. The batch's sizes stay symbols in export.

    Args:
        detector: The detector, in evaluation mode.

    Shape:
        images: (bs, C, H, W) float32, normalised, channel order as in training
        image_sizes: (bs, 2) int64, (h, w) in pixels of each image without its padding, which is at
            the bottom and at the right; None: (H, W)
        returns: boxes (bs, k, 4), pixels (x1, y1, x2, y2) of the input, clipped to the image;
            scores (bs, k) in [0, 1], descending; labels (bs, k) int64, indices of classes; k is the
            minimum of test_cfg.max_per_img and num_queries * num_classes. Detections that
            test_cfg.nms suppresses have score 0.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(
        self, images: Tensor, image_sizes: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Detect."""
        detector: Any = self.detector
        head = detector.bbox_head
        if image_sizes is None:
            height, width = images.shape[-2:]
            # (1, 2): a constant, or symbolic if the size is free
            extent = torch.stack([_float(width, images), _float(height, images)])[None]
        else:
            extent = image_sizes.flip(-1).float()
        output = detector.transformer(
            self._memory(images, image_sizes, extent), head.box_branches, head.proposal_branches
        )
        cls_scores, boxes = head.last_layer(output)
        count = head.test_cfg.get("max_per_img", 100)
        scores, labels, corners = top_k(cls_scores, boxes, count, head.nms_iou)
        extent = torch.cat([extent, extent], dim=-1)[:, None]
        return torch.minimum((corners * extent).clamp(min=0), extent), scores, labels

    def _memory(self, images: Tensor, image_sizes: Tensor | None, extent: Tensor) -> Memory:
        """Make the memory; extent is (1 or bs, 2), (w, h) of the images in pixels."""
        detector: Any = self.detector
        bs = images.shape[0]
        features = detector.extract_feat(images)
        masks = None
        if image_sizes is None:
            valid_ratios = images.new_ones((bs, len(features), 2))
            padding = [f.new_zeros((1, *f.shape[-2:]), dtype=torch.bool) for f in features]
        else:
            rows, columns = (
                torch.arange(side, device=images.device) < image_sizes[:, axis, None]
                for axis, side in enumerate(images.shape[-2:])
            )
            sources = detector.mask_from or [None] * len(features)
            masks, valid_ratios = masks_of(
                rows, columns, [tuple(f.shape[-2:]) for f in features], sources
            )
            padding = masks
        positions = [detector.positional_encoding(mask).expand(bs, -1, -1, -1) for mask in padding]
        return Memory.from_maps(
            features, positions, valid_ratios, masks, image_sizes=extent.expand(bs, -1)
        )


def _float(number: int, like: Tensor) -> Tensor:
    """Scalar tensor of a number that may be symbolic."""
    return torch.scalar_tensor(number, dtype=torch.float32, device=like.device)
