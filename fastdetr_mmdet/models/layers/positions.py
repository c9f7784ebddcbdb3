"""Sine embeddings: of reference points and boxes, and SAM-DETR's of the image."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
from mmdet.models.layers import SinePositionalEncoding
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...ops.eager import written_down
from ...structures.boxes import at_least_float32


def sine_embedding(
    reference: Tensor,
    num_feats: int = 128,
    temperature: float = 10000.0,
    order: Literal["yxwh", "xywh"] = "yxwh",
) -> Tensor:
    """Embed normalised coordinates with interleaved sines and cosines, differentiably.

    The frequencies are those of the image's positional encoding, so that the dot product of the
    two measures distance. Paper: Meng et al. 2021, arXiv 2108.06152, the function PE of Eq. (1);
    no difference from the official code. Always computed in float32 at least.

    Args:
        reference: Normalised (x, y) or (cx, cy, w, h), [0, 1].
        num_feats: Features per coordinate; even.
        temperature: Base of the geometric series of wave lengths.
        order: Order of the coordinates in the result: y first in the image's positional encoding
            and in Conditional DETR, x first in Deformable DETR's proposals.

    Shape:
        reference: (..., 2 or 4)
        returns: (..., 2 * num_feats or 4 * num_feats)
    """
    reference = at_least_float32(reference)
    feature = torch.arange(num_feats, dtype=reference.dtype, device=reference.device)
    wave_length = temperature ** (2 * torch.div(feature, 2, rounding_mode="floor") / num_feats)
    coordinates = dict(zip("xywh", reference.unbind(-1), strict=False))  # views, no copies
    ordered = torch.stack([coordinates[x] for x in order if x in coordinates], dim=-1)
    angles = (ordered * (2 * math.pi)).unsqueeze(-1) / wave_length
    pairs = torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], dim=-1)
    return pairs.flatten(-3)  # (..., coordinates, num_feats / 2, 2) -> (..., features)


@MODELS.register_module()
class SAMSinePositionalEncoding(SinePositionalEncoding):
    """Positional encoding of SAM-DETR, equal to the official one on padding too.

    Paper: none; the official code of SAM-DETR, Zhang et al. 2022, arXiv 2203.06883.

    On the image it is the sine encoding of cell centres, as in Deformable DETR
    (``SinePositionalEncoding`` with offset -0.5). On fully padded rows and columns the arguments of
    the sines are huge, and the result depends on the order of operations. SAM-DETR's aligner may
    read encoder output there, so this class keeps the official order: ``(c - 0.5) / ((last - 0.5) +
    eps + 0.5) * scale`` in float32, where c counts unpadded cells and last is its last value.

    Args:
        num_feats: Features per axis.
        **kwargs: As for mmdet's ``SinePositionalEncoding``, except normalize and offset.
    """

    def __init__(self, num_feats: int, **kwargs) -> None:
        super().__init__(num_feats=num_feats, normalize=True, offset=-0.5, **kwargs)

    def forward(self, mask: Tensor, input: Tensor | None = None) -> Tensor:
        """Encode.

        Shape:
            mask: (bs, h, w) bool, True on padding
            input: not used; a mask is always given
            returns: (bs, 2 * num_feats, h, w), y before x
        """
        inside = (~mask).float()
        axes = []
        for axis in (1, 2):
            centre = inside.cumsum(axis) - 0.5
            last = centre.select(axis, -1).unsqueeze(axis)
            axes.append(centre / (last + self.eps + 0.5) * self.scale)
        feature = torch.arange(self.num_feats, dtype=torch.float32, device=mask.device)
        power = 2 * torch.div(feature, 2, rounding_mode="floor") / self.num_feats
        angles = torch.stack(axes, dim=-1).unsqueeze(-1) / self.temperature**power
        pairs = torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], dim=-1)
        return pairs.flatten(3).permute(0, 3, 1, 2)


def encode_whole(encoding: nn.Module, size: tuple[int, int], device: torch.device) -> Tensor:
    """Positional encoding of a map of (h, w) cells without padding.

    Half of a sine encoding depends on the row only and half on the column only; both are cached per
    length.

    Shape:
        returns: (1, dims, h, w)
    """
    if type(encoding) not in (SinePositionalEncoding, SAMSinePositionalEncoding) or written_down():
        return encoding(torch.zeros(1, *size, dtype=torch.bool, device=device))
    halves = [_kept_half(encoding, axis, length, device) for axis, length in enumerate(size)]
    return torch.cat([half.expand(1, *size, -1) for half in halves], -1).permute(0, 3, 1, 2)


@lru_cache(maxsize=512)
def _kept_half(encoding: nn.Module, axis: int, length: int, device: torch.device) -> Tensor:
    """The rows' half (axis 0), (1, h, 1, dims / 2), or the columns', (1, 1, w, dims / 2)."""
    size = (length, 1) if axis == 0 else (1, length)
    whole = encoding(torch.zeros(1, *size, dtype=torch.bool, device=device))
    return whole.permute(0, 2, 3, 1).chunk(2, dim=-1)[axis]
