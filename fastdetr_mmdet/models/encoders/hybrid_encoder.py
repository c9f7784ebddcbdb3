"""Encoder of RT-DETR: attention on the coarsest level, convolutions between the levels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...ops.eager import plain_for_gradients
from ...structures import Memory
from ..parts import Encoder
from .detr_encoder import DetrEncoderLayer


class PaddedConv(nn.Module):
    """3x3 convolution that reads padding as zeros, norm over the channels, SiLU."""

    def __init__(self, dims: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dims, dims, 3, stride, 1)
        self.norm = nn.LayerNorm(dims)

    def forward(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """(bs, h, w, dims), padding (bs, h, w, 1) or None -> (bs, h / stride, w / stride, dims)."""
        if padding is not None:
            x = x.masked_fill(padding, 0.0)
        x = self.conv(plain_for_gradients(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        return F.silu(self.norm(x))


class FusionBlock(nn.Module):
    """Fuse two maps: the sum of a branch of convolutions and a branch with one projection."""

    def __init__(self, dims: int, hidden_dims: int, depth: int) -> None:
        super().__init__()
        self.main = _project(2 * dims, hidden_dims)
        self.short = _project(2 * dims, hidden_dims)
        self.convs = nn.ModuleList(PaddedConv(hidden_dims) for _ in range(depth))
        self.out = nn.Identity() if hidden_dims == dims else _project(hidden_dims, dims)

    def forward(self, one: Tensor, other: Tensor, padding: Tensor | None) -> Tensor:
        """(bs, h, w, dims) each -> the same."""
        both = torch.cat([one, other], dim=-1)
        x = self.main(both)
        for conv in self.convs:
            x = conv(x, padding)
        return self.out(x + self.short(both))


def _project(in_dims: int, out_dims: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_dims, out_dims), nn.LayerNorm(out_dims), nn.SiLU())


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (bs, h, w, dims) by nearest neighbours."""
    if tuple(x.shape[1:3]) == tuple(size):
        return x
    return F.interpolate(x.permute(0, 3, 1, 2), size=size, mode="nearest").permute(0, 2, 3, 1)


@MODELS.register_module()
class HybridEncoder(Encoder):
    """Self-attention on the coarsest level only; convolutions fuse the levels, down and up again.

    Paper: RT-DETR, Zhao et al. 2024, arXiv 2304.08069, Sec. 4.2, Eq. 1.

    Differences from the paper: LayerNorm over the channels of a cell instead of BatchNorm, so that
    neither the batch nor its padding changes an image's result; a 3x3 convolution for each RepVGG
    block, which becomes one after training; the projection of each level, with which RT-DETR's
    decoder begins, is part of this encoder.

    Each level should be half the size of the one before, rounded up, as strided convolutions make
    it. ``python -m benchmarks.parts`` compares its time with the deformable encoder's.

    Args:
        embed_dims: Width.
        num_levels: Levels of the memory.
        num_layers: Layers of self-attention.
        num_heads: Heads; must divide embed_dims.
        feedforward_channels: Hidden width of the feed-forward blocks.
        dropout: Dropout of attention weights, residual branches and feed-forward blocks.
        depth: Convolutions in each fusion block.
        expansion: Their width as a share of embed_dims: 1.0 in RT-DETR-R50, 0.5 in R18.

    Raises:
        ValueError: if embed_dims is not divisible by num_heads, or, when the model is built, if the
            neck gives a different number of levels.
    """

    def __init__(
        self,
        embed_dims: int,
        num_levels: int = 3,
        num_layers: int = 1,
        num_heads: int = 8,
        feedforward_channels: int = 1024,
        dropout: float = 0.0,
        depth: int = 3,
        expansion: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_levels = num_levels
        hidden, gaps = round(expansion * embed_dims), range(num_levels - 1)
        self.layers = nn.ModuleList(
            DetrEncoderLayer(embed_dims, num_heads, feedforward_channels, dropout)
            for _ in range(num_layers)
        )
        self.lateral = nn.ModuleList(_project(embed_dims, embed_dims) for _ in gaps)
        self.top_down = nn.ModuleList(FusionBlock(embed_dims, hidden, depth) for _ in gaps)
        self.down = nn.ModuleList(PaddedConv(embed_dims, stride=2) for _ in gaps)
        self.bottom_up = nn.ModuleList(FusionBlock(embed_dims, hidden, depth) for _ in gaps)
        self.out_proj = nn.ModuleList(
            nn.Sequential(nn.Linear(embed_dims, embed_dims), nn.LayerNorm(embed_dims))
            for _ in range(num_levels)
        )

    def forward(self, memory: Memory) -> Memory:
        """See ``Encoder.forward``; cells of the image never read padding."""
        shapes, coarsest = memory.spatial_shapes, memory.level(-1)
        maps = [level.tokens.unflatten(1, level.spatial_shapes[0]) for level in memory.levels]
        paddings = [
            None
            if level.padding_mask is None
            else level.padding_mask.unflatten(1, shape)[..., None]
            for level, shape in zip(memory.levels, shapes, strict=True)
        ]
        tokens = coarsest.tokens
        for layer in self.layers:
            tokens = layer(tokens, coarsest.pos, coarsest.attend_mask)
        maps[-1] = tokens.unflatten(1, shapes[-1])
        gaps = range(len(maps) - 1)
        for fine in reversed(gaps):
            maps[fine + 1] = self.lateral[fine](maps[fine + 1])
            above = _resize(maps[fine + 1], shapes[fine])
            maps[fine] = self.top_down[fine](above, maps[fine], paddings[fine])
        for fine in gaps:
            below = _resize(self.down[fine](maps[fine], paddings[fine]), shapes[fine + 1])
            maps[fine + 1] = self.bottom_up[fine](below, maps[fine + 1], paddings[fine + 1])
        made = [proj(x).flatten(1, 2) for proj, x in zip(self.out_proj, maps, strict=True)]
        return memory.with_tokens(torch.cat(made, dim=1))
