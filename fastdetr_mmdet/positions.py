"""Sine embedding of reference points and boxes (Conditional DETR, Sec. 3.3)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor


def sine_embedding(
    reference: Tensor,
    num_feats: int = 128,
    temperature: float = 10000.0,
    order: Literal["yxwh", "xywh"] = "yxwh",
) -> Tensor:
    """Embed normalised coordinates with interleaved sines and cosines, differentiably.

    The frequencies are those of the image's positional encoding, so that the dot product of the
    two measures distance. Paper: Meng et al. 2021, arXiv 2108.06152, the function PE of Eq. (1);
    no difference from the official code. Always computed in float32.

    Args:
        reference: Normalised (x, y) or (cx, cy, w, h), [0, 1].
        num_feats: Features per coordinate; even.
        temperature: Base of the geometric series of wave lengths.
        order: Of the coordinates in the result. The image's positional encoding, and with it
            Conditional DETR, has y first; Deformable DETR's proposals have x first.

    Shape:
        reference: (..., 2 or 4)
        returns: (..., 2 * num_feats or 4 * num_feats)
    """
    reference = reference.float()
    feature = torch.arange(num_feats, dtype=torch.float32, device=reference.device)
    wave_length = temperature ** (2 * torch.div(feature, 2, rounding_mode="floor") / num_feats)
    coordinates = dict(zip("xywh", reference.unbind(-1), strict=False))  # views: no index to copy
    ordered = torch.stack([coordinates[x] for x in order if x in coordinates], dim=-1)
    angles = (ordered * (2 * math.pi)).unsqueeze(-1) / wave_length
    pairs = torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], dim=-1)
    return pairs.flatten(-3)  # (..., coordinates, num_feats / 2, 2) -> (..., features)
