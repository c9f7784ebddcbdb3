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
    mask_from: Sequence[int | None] | None = None,
) -> tuple[list[Tensor] | None, Tensor]:
    """Compute padding masks and valid ratios of every level.

    Equals nearest interpolation of the image's mask to each level, as in all official codes, but
    works on rows and columns separately and on the host: no full-size mask, no device sync.

    Args:
        image_sizes: Un-padded (h, w) of every image, in pixels.
        batch_size: (H, W) of the padded batch, in pixels.
        level_sizes: (h, w) of every feature level.
        mask_from: Per level the index of an earlier level whose mask is interpolated; None, for one
            or all levels: the image's mask.

    Shape:
        returns: masks, per level (bs, h, w) bool, True on padding, or None when no image is
            padded; valid_ratios (bs, num_levels, 2) float32, (w, h).

    Raises:
        ValueError: if an image is larger than the batch, or mask_from does not fit the levels.
    """
    height, width = batch_size
    sources = mask_from or [None] * len(level_sizes)
    known = all(source is None or 0 <= source < level for level, source in enumerate(sources))
    if len(sources) != len(level_sizes) or not known:
        raise ValueError(
            f"mask_from={list(sources)} must have one entry per level ({len(level_sizes)}), each "
            "None or the index of an earlier level."
        )
    for h, w in image_sizes:
        if h > height or w > width:
            raise ValueError(
                f"An image of {h}x{w} (height x width) does not fit its batch of {height}x{width}; "
                "check img_shape and batch_input_shape of the data samples."
            )
    if all(tuple(size) == (height, width) for size in image_sizes):
        return None, torch.ones(len(image_sizes), len(level_sizes), 2)

    rows = torch.stack([torch.arange(height) < h for h, _ in image_sizes])
    columns = torch.stack([torch.arange(width) < w for _, w in image_sizes])
    return masks_of(rows, columns, level_sizes, sources)


def masks_of(
    rows: Tensor,
    columns: Tensor,
    level_sizes: Sequence[Size],
    mask_from: Sequence[int | None],
) -> tuple[list[Tensor], Tensor]:
    """Compute ``level_masks`` from masks of the images' rows and columns; always with masks.

    Exported graphs use this too, with image sizes as tensors.

    Shape:
        rows: (bs, H) bool, True on the image
        columns: (bs, W) bool, True on the image
    """
    whole = (rows[:, None].float(), columns[:, None].float())
    valid: list[tuple[Tensor, Tensor]] = []  # per level rows (bs, 1, h) and columns, 1 on the image
    for (h, w), source in zip(level_sizes, mask_from, strict=True):
        from_rows, from_columns = whole if source is None else valid[source]
        valid.append(
            (
                F.interpolate(from_rows, size=h, mode="nearest"),
                F.interpolate(from_columns, size=w, mode="nearest"),
            )
        )
    masks, ratios = [], []
    for (h, w), (level_rows, level_columns) in zip(level_sizes, valid, strict=True):
        valid_rows, valid_columns = level_rows[:, 0] > 0.5, level_columns[:, 0] > 0.5
        masks.append(~(valid_rows[:, :, None] & valid_columns[:, None, :]))
        ratios.append(torch.stack([valid_columns.sum(1) / w, valid_rows.sum(1) / h], dim=-1))
    return masks, torch.stack(ratios, dim=1)


def host_shapes(
    valid_ratios: Tensor, level_sizes: Sequence[Size]
) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Per level and image the (h, w) of the un-padded map, as Python ints.

    Shape:
        valid_ratios: (bs, num_levels, 2), (w, h), on the host
    """
    sizes = torch.tensor([[w, h] for h, w in level_sizes])
    cells = (valid_ratios * sizes).round().long().flip(-1).transpose(0, 1)
    return tuple(tuple((h, w) for h, w in level) for level in cells.tolist())
