"""Maps of several levels as one heat map, laid over an image."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F

# Sides of the common grid: coarse maps become smooth, and large images stay quick to draw.
SMALLEST, LARGEST = 160, 480


def density(maps: Sequence[np.ndarray], shares: bool = True) -> np.ndarray:
    """One map of the values of all levels, interpolated to one grid that covers the image.

    Cells of different levels differ in size: a share is divided by its cell's area, so that 1 is
    the mean of a map that looks at everything alike, and levels are added. Other values, as a
    prior's, are averaged over the levels.

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
    total = torch.zeros(size)
    for values in maps:
        level = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        level = F.interpolate(level[None, None], size=size, mode="bilinear", align_corners=False)
        total += level[0, 0] * (values.size if shares else 1 / len(maps))
    return total.numpy()


def blend(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The image under a translucent heat map: the hotter, the less is seen of it.

    Shape:
        image: (h, w, 3) uint8
        values: (H, W), [0, 1]
        returns: the larger of both sizes, (., ., 3) uint8
    """
    h, w = (max(pair) for pair in zip(image.shape[:2], values.shape, strict=True))
    under = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    under = F.interpolate(under, size=(h, w), mode="bilinear", align_corners=False)[0]
    over = torch.from_numpy(values)[None, None]
    over = F.interpolate(over, size=(h, w), mode="bilinear", align_corners=False)[0, 0].numpy()
    colours = matplotlib.colormaps["inferno"](over)[..., :3] * 255
    share = (0.25 + 0.65 * np.sqrt(over.clip(0, 1)))[..., None]
    mixed = under.permute(1, 2, 0).numpy() * (1 - share) + colours * share
    return mixed.clip(0, 255).astype(np.uint8)
