"""Combine maps of several levels to one heat map over an image."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Limits of the common grid's sides, for smooth maps and fast drawing.
SMALLEST, LARGEST = 160, 480


def density(maps: Sequence[np.ndarray], shares: bool = True) -> np.ndarray:
    """Interpolate the maps of all levels to one grid over the image, and combine them.

    Shares are divided by their cell's area and summed over levels, so that uniform attention is 1
    everywhere. Other values, such as a prior's, are averaged over levels.

    Args:
        maps: Per level.
        shares: Whether the values are shares that add up over cells and levels.

    Shape:
        maps: (h, w) each
        returns: (H, W) float32
    """
    h, w = maps[0].shape
    scale = min(max(SMALLEST / max(h, w), 1), max(LARGEST / max(h, w), 1))
    size = (max(round(h * scale), 1), max(round(w * scale), 1))
    total = np.zeros(size, dtype=np.float32)
    for values in maps:
        level = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        total += _resize(level[None], size)[0] * (values.size if shares else 1 / len(maps))
    return total


def blend(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Blend a heat map over an image; higher values are more opaque.

    Shape:
        image: (h, w, 3) uint8
        values: (H, W), [0, 1]
        returns: the larger of both sizes, (., ., 3) uint8
    """
    h = max(image.shape[0], values.shape[0])
    w = max(image.shape[1], values.shape[1])
    under = _resize(torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1), (h, w))
    over = _resize(torch.from_numpy(values)[None], (h, w))[0].clip(0, 1)
    colours = np.asarray(matplotlib.colormaps["inferno"](over))[..., :3] * 255
    share = (0.25 + 0.65 * np.sqrt(over))[..., None]
    mixed = under.transpose(1, 2, 0) * (1 - share) + colours * share
    return mixed.clip(0, 255).astype(np.uint8)


def _resize(maps: Tensor, size: tuple[int, int]) -> np.ndarray:
    """(channels, h, w) -> (channels, *size), bilinear; image corners coincide."""
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0].numpy()
