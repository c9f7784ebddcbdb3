"""Multi-scale encoder of the SMCA paper (Gao et al. 2021, arXiv 2101.07448, Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...structures import Memory
from ..layers import call_layer
from ..parts import Encoder
from .detr_encoder import DetrEncoderLayer


@MODELS.register_module()
class SMCAEncoder(Encoder):
    """Blocks of self-attention within each scale or over all scales, in the order of ``pattern``.

    Paper: SMCA, Gao et al. 2021, arXiv 2101.07448, Sec. 3.3.

    An intra-scale block lets a token attend to tokens of its own scale only, with the same weights
    for every scale; a multi-scale block attends over all scales. The paper uses two intra-scale,
    one multi-scale and two intra-scale blocks. The authors published no code for it (their released
    multi-scale code is ``SMCAConvEncoder``); this follows the paper's text, with the blocks of DETR
    (self-attention and feed-forward, each with residual and post-norm).

    Args:
        embed_dims: Width.
        pattern: Kind of each block, 'intra' or 'multi', in order.
        num_heads: Heads; must divide embed_dims.
        feedforward_channels: Hidden width of the feed-forward block.
        dropout: Dropout of attention weights, residual branches and feed-forward block.
        with_cp: Gradient checkpointing: training recomputes each layer in the backward pass.

    Raises:
        ValueError: if the pattern is empty or has other values, or embed_dims is not divisible by
            num_heads.
    """

    def __init__(
        self,
        embed_dims: int,
        pattern: Sequence[Literal["intra", "multi"]] = (
            "intra",
            "intra",
            "multi",
            "intra",
            "intra",
        ),
        num_heads: int = 8,
        feedforward_channels: int = 1024,
        dropout: float = 0.1,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        if not pattern or not set(pattern) <= {"intra", "multi"}:
            raise ValueError(
                f"SMCAEncoder: pattern={list(pattern)} must be a list of 'intra' and 'multi', one "
                "per block."
            )
        self.pattern = tuple(pattern)
        self.layers = nn.ModuleList(
            DetrEncoderLayer(embed_dims, num_heads, feedforward_channels, dropout) for _ in pattern
        )

    def forward(self, memory: Memory) -> Memory:
        """See ``Encoder.forward``."""
        levels = memory.levels  # for their positions and masks
        for kind, layer in zip(self.pattern, self.layers, strict=True):
            if kind == "multi":
                whole = (memory.tokens, memory.pos, memory.attend_mask)
                memory = memory.with_tokens(call_layer(layer, *whole, with_cp=self.with_cp))
            else:
                parts = memory.tokens.split(memory.level_sizes, dim=1)
                tokens = call_layer(_within, layer, parts, levels, with_cp=self.with_cp)
                memory = memory.with_tokens(tokens)
        return memory


def _within(layer: nn.Module, parts: Sequence[Tensor], levels: Sequence[Memory]) -> Tensor:
    """Run one block on each scale by itself, with the same weights."""
    return torch.cat(
        [
            layer(tokens, level.pos, level.attend_mask)
            for tokens, level in zip(parts, levels, strict=True)
        ],
        dim=1,
    )
