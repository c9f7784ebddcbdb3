"""One decoder layer, made of the parts that the config names."""

from __future__ import annotations

from mmdet.registry import MODELS
from torch import Tensor, nn

from ..layers import FeedForward
from ..structures import Memory, Queries


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward, each with residual and post-norm.

    Two optional parts come between self-attention and cross-attention:

    * ``aligner(queries, memory) -> Queries``: replaces what the cross-attention takes as queries
      (SAM-DETR); the residual stream stays.
    * ``spatial_prior(queries, memory) -> (bs, num_heads or 1, num_queries, num_tokens)``: is added
      to the scores (SMCA). It sees the layer's input queries.

    Args:
        embed_dims: Width.
        num_heads: Default for parts whose config does not set it.
        feedforward_channels: Hidden width of the feed-forward block.
        dropout: Dropout of residual branches, and default for the parts.
        self_attn, cross_attn, aligner, spatial_prior: Part configs; the last two may be None.
        layer_index: Position in the decoder; parts that differ in the first layer are told.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        dropout: float,
        self_attn: dict,
        cross_attn: dict,
        aligner: dict | None = None,
        spatial_prior: dict | None = None,
        layer_index: int = 0,
    ) -> None:
        super().__init__()
        shared = dict(embed_dims=embed_dims, num_heads=num_heads, layer_index=layer_index)
        attention = dict(shared, dropout=dropout)
        self.self_attn = MODELS.build(self_attn, default_args=attention)
        self.norm1 = nn.LayerNorm(embed_dims)
        self.aligner = aligner and MODELS.build(aligner, default_args=shared)
        self.spatial_prior = spatial_prior and MODELS.build(spatial_prior, default_args=shared)
        self.cross_attn = MODELS.build(cross_attn, default_args=attention)
        if spatial_prior and not getattr(self.cross_attn, "takes_spatial_prior", True):
            raise ValueError(
                f"{type(self.cross_attn).__name__} has no attention matrix to which "
                f"{type(self.spatial_prior).__name__} could add; drop spatial_prior or choose a "
                "dense cross-attention such as ConditionalAttention."
            )
        self.norm2 = nn.LayerNorm(embed_dims)
        self.ffn = FeedForward(embed_dims, feedforward_channels, dropout)
        self.norm3 = nn.LayerNorm(embed_dims)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Queries, memory: Memory) -> Tensor:
        """The queries' new content, (bs, num_queries, embed_dims)."""
        prior = self.spatial_prior(queries, memory) if self.spatial_prior else None
        content = self.norm1(queries.content + self.dropout(self.self_attn(queries)))
        queries = queries.with_content(content)
        if self.aligner:
            queries = self.aligner(queries, memory)
        content = self.norm2(content + self.dropout(self.cross_attn(queries, memory, prior)))
        return self.norm3(content + self.dropout(self.ffn(content)))
