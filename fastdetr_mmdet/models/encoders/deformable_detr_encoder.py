"""Encoder of Deformable DETR (Zhu et al. 2021, arXiv 2010.04159)."""

from __future__ import annotations

from mmdet.registry import MODELS
from torch import Tensor, nn

from ...ops.dropout import Dropout
from ...structures import Memory, Queries
from ..cross_attention.deformable_attention import DeformableAttention
from ..layers import FeedForward, by_tokens, call_layer
from ..parts import Encoder
from .memory_fusion import MemoryFusion


class DeformableDetrEncoderLayer(nn.Module):
    """Deformable self-attention, then feed-forward; each with residual and post-norm."""

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        num_levels: int,
        num_points: int,
        feedforward_channels: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(
            embed_dims, num_heads=num_heads, num_levels=num_levels, num_points=num_points
        )
        self.norm1 = nn.LayerNorm(embed_dims)
        self.ffn = FeedForward(embed_dims, feedforward_channels, dropout)
        self.norm2 = nn.LayerNorm(embed_dims)
        self.dropout = Dropout(dropout)

    def forward(self, memory: Memory, grid: Tensor) -> Memory:
        """Update the tokens; ``grid`` are the normalised cell centres, (bs, num_tokens, 2)."""
        queries = Queries(content=memory.tokens, pos=memory.pos, reference=grid)
        attended = self.self_attn(queries, memory)
        return memory.with_tokens(by_tokens(self._update, memory.tokens, attended))

    def _update(self, tokens: Tensor, attended: Tensor) -> Tensor:
        tokens = self.norm1(tokens + self.dropout(attended))
        return self.norm2(tokens + self.dropout(self.ffn(tokens)))


@MODELS.register_module()
class DeformableDetrEncoder(Encoder):
    """Every token samples a few points around its own position on every level.

    Paper: Deformable DETR, Zhu et al. 2021, arXiv 2010.04159, Sec. 4.1, "Deformable Transformer
    Encoder", Eq. 3. No difference.

    Args:
        embed_dims: Width.
        num_layers: Encoder layers.
        num_heads: Heads; must divide embed_dims.
        num_levels: Levels of the memory.
        num_points: Points per head and level.
        feedforward_channels: Hidden width of the feed-forward block.
        dropout: Dropout of residual branches and feed-forward block.
        with_cp: Gradient checkpointing: training recomputes each layer in the backward pass.
        memory_fusion: Whether the result is a projection of the input and all layers' outputs
            (Stable-DINO, Liu et al. 2023, arXiv 2304.04742) instead of the last output.

    Raises:
        ValueError: if embed_dims is not divisible by num_heads, or, when the model is built, if the
            neck gives a different number of levels.
    """

    def __init__(
        self,
        embed_dims: int,
        num_layers: int = 6,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        feedforward_channels: int = 1024,
        dropout: float = 0.1,
        with_cp: bool = False,
        memory_fusion: bool = False,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.num_levels = num_levels
        self.layers = nn.ModuleList(
            DeformableDetrEncoderLayer(
                embed_dims, num_heads, num_levels, num_points, feedforward_channels, dropout
            )
            for _ in range(num_layers)
        )
        self.fusion = MemoryFusion(embed_dims, num_layers) if memory_fusion else None

    def forward(self, memory: Memory) -> Memory:
        """See ``Encoder.forward``.

        Padding is sampled as zeros, but its tokens are updated too (SAM-DETR's aligner may read
        them).
        """
        grid, states = memory.grid(), [memory.tokens]
        for layer in self.layers:
            memory = call_layer(layer, memory, grid, with_cp=self.with_cp)
            if self.fusion is not None:
                states.append(memory.tokens)
        return memory if self.fusion is None else memory.with_tokens(self.fusion(states))
