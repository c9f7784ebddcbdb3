"""Dense encoder of DETR (Carion et al. 2020, arXiv 2005.12872)."""

from __future__ import annotations

from mmdet.registry import MODELS
from torch import Tensor, nn

from ...ops.dropout import Dropout
from ...structures import Memory
from ..layers import (
    FeedForward,
    InProjection,
    OutProjection,
    attend,
    by_tokens,
    call_layer,
    check_heads,
)
from ..parts import Encoder
from .memory_fusion import MemoryFusion


class DetrEncoderLayer(nn.Module):
    """Self-attention over all tokens, then feed-forward; each with residual and post-norm."""

    def __init__(
        self, embed_dims: int, num_heads: int, feedforward_channels: int, dropout: float
    ) -> None:
        super().__init__()
        check_heads("DetrEncoder", embed_dims, num_heads)
        self.num_heads = num_heads
        self.in_proj = InProjection(embed_dims)
        self.out_proj = OutProjection(embed_dims)
        self.norm1 = nn.LayerNorm(embed_dims)
        self.ffn = FeedForward(embed_dims, feedforward_channels, dropout)
        self.norm2 = nn.LayerNorm(embed_dims)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, pos: Tensor, attend_mask: Tensor | None) -> Tensor:
        """(bs, num_tokens, embed_dims) -> the same."""
        located = tokens + pos
        query, key, value = self.in_proj(located, located, tokens)
        dropout = self.dropout.p if self.training else 0.0
        attended = attend(query, key, value, self.num_heads, attend_mask, dropout)
        return by_tokens(self._update, tokens, attended)

    def _update(self, tokens: Tensor, attended: Tensor) -> Tensor:
        tokens = self.norm1(tokens + self.dropout(self.out_proj(attended)))
        return self.norm2(tokens + self.dropout(self.ffn(tokens)))


@MODELS.register_module()
class DetrEncoder(Encoder):
    """Plain Transformer encoder over the tokens of all levels together.

    Paper: DETR, Carion et al. 2020, arXiv 2005.12872, appendix A.3. Conditional DETR uses the same.
    No difference.

    Args:
        embed_dims: Width.
        num_layers: Encoder layers.
        num_heads: Heads; must divide embed_dims.
        feedforward_channels: Hidden width of the feed-forward block.
        dropout: Dropout of attention weights, residual branches and feed-forward block.
        with_cp: Gradient checkpointing: training recomputes each layer in the backward pass.
        memory_fusion: Whether the result is a projection of the input and all layers' outputs
            (Stable-DINO, Liu et al. 2023, arXiv 2304.04742) instead of the last output.

    Raises:
        ValueError: if embed_dims is not divisible by num_heads.
    """

    def __init__(
        self,
        embed_dims: int,
        num_layers: int = 6,
        num_heads: int = 8,
        feedforward_channels: int = 2048,
        dropout: float = 0.1,
        with_cp: bool = False,
        memory_fusion: bool = False,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.layers = nn.ModuleList(
            DetrEncoderLayer(embed_dims, num_heads, feedforward_channels, dropout)
            for _ in range(num_layers)
        )
        self.fusion = MemoryFusion(embed_dims, num_layers) if memory_fusion else None

    def forward(self, memory: Memory) -> Memory:
        """See ``Encoder.forward``; padding is never attended to, but updated too."""
        tokens, attend_mask = memory.tokens, memory.attend_mask
        states = [tokens]
        for layer in self.layers:
            tokens = call_layer(layer, tokens, memory.pos, attend_mask, with_cp=self.with_cp)
            if self.fusion is not None:
                states.append(tokens)
        return memory.with_tokens(tokens if self.fusion is None else self.fusion(states))
