"""Multi-scale encoder that the SMCA authors released: convolutions instead of attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...ops.dropout import Dropout
from ...structures import Memory
from ..layers import FeedForward, call_layer, init_xavier
from ..parts import Encoder

Shapes = Sequence[Sequence[tuple[int, int]]]


class SMCAConvEncoderLayer(nn.Module):
    """Depthwise convolutions within and between neighbouring levels, then feed-forward."""

    def __init__(
        self,
        embed_dims: int,
        num_levels: int,
        kernel_size: int,
        share_cross_level: bool,
        feedforward_channels: int,
        dropout: float,
    ) -> None:
        super().__init__()

        def depthwise(stride: int = 1) -> nn.Conv2d:
            return nn.Conv2d(
                embed_dims, embed_dims, kernel_size, stride, kernel_size // 2, groups=embed_dims
            )

        gaps = num_levels - 1
        between = min(gaps, 1) if share_cross_level else gaps
        self.within = nn.ModuleList(depthwise() for _ in range(num_levels))
        self.down = nn.ModuleList(depthwise(stride=2) for _ in range(between))
        self.up = nn.ModuleList(depthwise() for _ in range(between))
        self.in_proj = nn.Conv2d(embed_dims, embed_dims, 1)
        self.out_proj = nn.Conv2d(embed_dims, embed_dims, 1)
        init_xavier(self)
        self.norm1 = nn.LayerNorm(embed_dims)
        self.ffn = FeedForward(embed_dims, feedforward_channels, dropout)
        self.norm2 = nn.LayerNorm(embed_dims)
        self.dropout = Dropout(dropout)

    def forward(self, memory: Memory, valid_shapes: Shapes | None = None) -> Memory:
        """Update the tokens; with ``valid_shapes`` each image by itself, without its padding."""
        located = memory.with_tokens(memory.located)
        messages = per_image(self._mix, located.maps(), valid_shapes)
        mixed = torch.cat([m.flatten(2).transpose(1, 2) for m in messages], dim=1)
        tokens = self.norm1(memory.tokens + self.dropout(mixed))
        return memory.with_tokens(self.norm2(tokens + self.dropout(self.ffn(tokens))))

    def _mix(self, maps: list[Tensor]) -> list[Tensor]:
        """Per level (bs, embed_dims, h, w) -> the same."""
        own = [conv(self.in_proj(x)) for conv, x in zip(self.within, maps, strict=True)]
        return [self.out_proj(self._gather(own, index)) for index in range(len(own))]

    def _gather(self, own: list[Tensor], index: int) -> Tensor:
        """A level's own features plus those of its finer and coarser neighbours."""
        total = own[index]
        if index > 0:
            told = self.down[(index - 1) % len(self.down)](own[index - 1])
            total = total + _fit(told, total.shape[-2:])
        if index + 1 < len(own):
            told = self.up[index % len(self.up)](own[index + 1])
            size = own[index].shape[-2:]
            total = total + F.interpolate(told, size=size, mode="bilinear", align_corners=True)
        return total


def _fit(x: Tensor, size: Sequence[int]) -> Tensor:
    """Cut or zero-pad at right and bottom: masks and convolutions may differ by one row."""
    (h, w), (height, width) = x.shape[-2:], size
    return x if (h, w) == (height, width) else F.pad(x, (0, width - w, 0, height - h))


def per_image(
    function: Callable[[list[Tensor]], list[Tensor]],
    maps: list[Tensor],
    valid_shapes: Shapes | None,
) -> list[Tensor]:
    """Apply a function to the maps of all images together, or to each image without its padding.

    Maps are (bs, embed_dims, h, w) per level; with ``valid_shapes``, as in ``Memory``, the function
    is called for each image.
    """
    if valid_shapes is None:
        return function(maps)
    results = []
    for image in range(len(maps[0])):
        shapes = [level[image] for level in valid_shapes]
        cut = [x[image : image + 1, :, :h, :w] for x, (h, w) in zip(maps, shapes, strict=True)]
        results.append(function(cut))
    return [
        torch.cat([_fit(result[level], maps[level].shape[-2:]) for result in results])
        for level in range(len(maps))
    ]


@MODELS.register_module()
class SMCAConvEncoder(Encoder):
    """Bidirectional depthwise convolutions over neighbouring levels.

    Paper: none; it is the "new multi scale" code that the authors of SMCA (Gao et al. 2021, arXiv
    2101.07448) released instead of the paper's encoder. Each level should be half the size of
    the one before, rounded up, as strided convolutions make it.

    Args:
        embed_dims: Width.
        num_layers: Encoder layers.
        num_levels: Levels of the memory.
        kernel_size: Of the depthwise convolutions; odd. 7 in the variant with 44.4 AP, 5 in the
            authors' later file.
        share_cross_level: Whether all pairs of levels share the convolutions between them (the
            variant with 44.4 AP), or each pair has its own (the later file).
        reduce_first: Whether the first level is halved in size at the end; the decoder then sees it
            with the grid, mask and positions of the second level.
        ignore_padding: False, as in the official code: the convolutions read padding like image.
            True: they run image by image, without padding, so an image gives the same result in
            every batch.
        feedforward_channels: Hidden width of the feed-forward block.
        dropout: Dropout of residual branches and feed-forward block.
        with_cp: Gradient checkpointing: training recomputes each layer in the backward pass.

    Raises:
        ValueError: if kernel_size is even, reduce_first is set with one level, or, when the model
            is built, if the neck gives a different number of levels.
    """

    def __init__(
        self,
        embed_dims: int,
        num_layers: int = 6,
        num_levels: int = 4,
        kernel_size: int = 7,
        share_cross_level: bool = True,
        reduce_first: bool = False,
        ignore_padding: bool = False,
        feedforward_channels: int = 1024,
        dropout: float = 0.1,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        if kernel_size % 2 == 0:
            raise ValueError(f"SMCAConvEncoder: kernel_size={kernel_size} must be odd.")
        if reduce_first and num_levels < 2:
            raise ValueError(
                "SMCAConvEncoder: reduce_first puts the first level on the grid of the second, but "
                "num_levels=1; set reduce_first=False."
            )
        self.num_levels = num_levels
        self.ignore_padding = ignore_padding
        self.layers = nn.ModuleList(
            SMCAConvEncoderLayer(
                embed_dims,
                num_levels,
                kernel_size,
                share_cross_level,
                feedforward_channels,
                dropout,
            )
            for _ in range(num_layers)
        )
        # keeps torch's own initialisation, as in the official code
        self.reduce = nn.Conv2d(embed_dims, embed_dims, 3, 2, 1) if reduce_first else None

    def forward(self, memory: Memory) -> Memory:
        """See ``Encoder.forward``.

        With reduce_first the first level has the second's size, positions, mask and valid ratios.
        """
        valid_shapes = memory.valid_shapes if self.ignore_padding else None
        for layer in self.layers:
            memory = call_layer(layer, memory, valid_shapes, with_cp=self.with_cp)
        return memory if self.reduce is None else self._reduced(memory)

    def _reduced(self, memory: Memory) -> Memory:
        reduce = self.reduce
        assert reduce is not None
        valid = memory.valid_shapes
        own = valid[:1] if valid is not None and self.ignore_padding else None
        finest, second = memory.maps()[0], memory.level(1)
        (reduced,) = per_image(lambda maps: [reduce(maps[0])], [finest], own)
        reduced = _fit(reduced, memory.spatial_shapes[1])
        first = memory.level_sizes[0]
        mask, ratios = memory.padding_mask, memory.valid_ratios
        shapes = memory.spatial_shapes
        if mask is not None and second.padding_mask is not None:
            mask = torch.cat([second.padding_mask, mask[:, first:]], dim=1)
        return replace(
            memory,
            tokens=torch.cat([reduced.flatten(2).transpose(1, 2), memory.tokens[:, first:]], 1),
            pos=torch.cat([second.pos, memory.pos[:, first:]], dim=1),
            spatial_shapes=(shapes[1], *shapes[1:]),
            valid_ratios=torch.cat([ratios[:, 1:2], ratios[:, 1:]], dim=1),
            padding_mask=mask,
            valid_shapes=valid and (valid[1], *valid[1:]),
        )
