"""Padding masks and valid ratios of feature maps, computed on the host from image sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


def level_masks(
    image_sizes: Sequence[Size],
    batch_size: Size,
    level_sizes: Sequence[Size],
    device: torch.device | str = "cpu",
) -> tuple[list[Tensor] | None, Tensor]:
    """Padding mask and valid ratios of every level.

    Equals nearest interpolation of the image's mask to each level, as all official codes do, but
    is done on rows and columns apart (nearest interpolation is separable), and on the host, where
    the sizes are known: no full-size mask, no device sync.

    Args:
        image_sizes: Un-padded (h, w) of every image, in pixels.
        batch_size: (H, W) of the padded batch, in pixels.
        level_sizes: (h, w) of every feature level.
        device: Where the results go.

    Shape:
        returns: masks, per level (bs, h, w) bool, True on padding, or None when no image is
            padded; valid_ratios (bs, num_levels, 2) float32, (w, h).

    Raises:
        ValueError: if an image is larger than the batch.
    """
    height, width = batch_size
    for h, w in image_sizes:
        if h > height or w > width:
            raise ValueError(
                f"An image of {h}x{w} (height x width) does not fit its batch of {height}x{width}; "
                "img_shape and batch_input_shape of the data samples disagree."
            )
    if all(tuple(size) == (height, width) for size in image_sizes):
        return None, torch.ones(len(image_sizes), len(level_sizes), 2, device=device)

    rows = torch.stack([torch.arange(height) < h for h, _ in image_sizes]).float()[:, None]
    columns = torch.stack([torch.arange(width) < w for _, w in image_sizes]).float()[:, None]
    masks, ratios = [], []
    for h, w in level_sizes:
        valid_rows = F.interpolate(rows, size=h, mode="nearest")[:, 0] > 0.5  # (bs, h)
        valid_columns = F.interpolate(columns, size=w, mode="nearest")[:, 0] > 0.5  # (bs, w)
        masks.append(~(valid_rows[:, :, None] & valid_columns[:, None, :]))
        ratios.append(torch.stack([valid_columns.sum(1) / w, valid_rows.sum(1) / h], dim=-1))
    valid_ratios = torch.stack(ratios, dim=1)
    return [mask.to(device, non_blocking=True) for mask in masks], valid_ratios.to(
        device, non_blocking=True
    )
