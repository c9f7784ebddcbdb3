"""One decoder layer, made of the parts that the config names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mmdet.registry import MODELS
from torch import Tensor, nn

from ...ops.dropout import Dropout
from ...structures import Memory, Queries
from ..contracts import contract
from ..layers import FeedForward
from ..parts import Field, Placed


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward, each with residual and post-norm.

    Two optional parts come between self-attention and cross-attention: an ``Aligner`` changes the
    queries of the cross-attention (SAM-DETR), and a ``SpatialPrior`` is added to its scores (SMCA).
    Neither changes the residual stream.

    Args:
        embed_dims: Width.
        num_heads: Default for parts whose config does not set it.
        feedforward_channels: Hidden width of the feed-forward block.
        dropout: Dropout of residual branches, and default for the parts.
        self_attn, cross_attn, aligner, spatial_prior: Part configs; the last two may be None.
        layer_index: Position in the decoder; passed to parts that differ in the first layer.
        cross_first: Whether cross-attention, with aligner and prior, comes before self-attention.
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
        cross_first: bool = False,
    ) -> None:
        super().__init__()
        self.cross_first = cross_first
        shared = dict(embed_dims=embed_dims, num_heads=num_heads, layer_index=layer_index)
        attention = dict(shared, dropout=dropout)
        self.self_attn = MODELS.build(self_attn, default_args=attention)
        self.norm1 = nn.LayerNorm(embed_dims)
        self.spatial_prior: nn.Module | None = None
        self.prior_after_aligner = False
        if spatial_prior:
            self.spatial_prior = MODELS.build(spatial_prior, default_args=shared)
            declared = contract("transformer.decoder.spatial_prior", self.spatial_prior)
            self.prior_after_aligner = Field.SALIENT in declared.reads
        for_aligner = dict(shared, predict_scales=True) if self.prior_after_aligner else shared
        self.aligner: nn.Module | None = None
        if aligner:
            self.aligner = MODELS.build(aligner, default_args=for_aligner)
        self.cross_attn = MODELS.build(cross_attn, default_args=attention)
        self.input_norm: nn.LayerNorm | None = None
        if any(Field.EMBEDDED in contract(*placed).reads for placed in self.parts):
            self.input_norm = nn.LayerNorm(embed_dims)
        self.norm2 = nn.LayerNorm(embed_dims)
        self.ffn = FeedForward(embed_dims, feedforward_channels, dropout)
        self.norm3 = nn.LayerNorm(embed_dims)
        self.dropout = Dropout(dropout)

    @property
    def parts(self) -> list[Placed]:
        """The parts with their keys in the config."""
        parts = dict(
            self_attn=self.self_attn,
            aligner=self.aligner,
            spatial_prior=self.spatial_prior,
            cross_attn=self.cross_attn,
        )
        return [(f"transformer.decoder.{key}", part) for key, part in parts.items() if part]

    def locate(self, queries: Queries) -> Queries:
        """Set the references that the spatial prior predicts (first layer only)."""
        prior: Any = self.spatial_prior
        return prior.locate(self.embed(queries))

    def embed(self, queries: Queries) -> Queries:
        """Set ``embedded``, if a part reads it and ``locate`` has not done so."""
        if self.input_norm is None or queries.embedded is not None:
            return queries
        return replace(queries, embedded=self.input_norm(queries.located))

    def forward(self, queries: Queries, memory: Memory) -> tuple[Tensor, Tensor]:
        """Return the queries' new content, and their content right after cross-attention.

        Shape:
            returns: (bs, num_queries, embed_dims) each
        """
        queries = self.embed(queries)
        prior: Tensor | None = None
        if self.spatial_prior is not None and not self.prior_after_aligner:
            prior = self.spatial_prior(queries, memory)
        if not self.cross_first:
            queries = self._attend_to_queries(queries)
        queries = self._attend_to_memory(queries, memory, prior)
        after_cross = queries.content
        if self.cross_first:
            queries = self._attend_to_queries(queries)
        content = queries.content
        return self.norm3(content + self.dropout(self.ffn(content))), after_cross

    def _attend_to_queries(self, queries: Queries) -> Queries:
        content = queries.content + self.dropout(self.self_attn(queries))
        return queries.with_content(self.norm1(content))

    def _attend_to_memory(self, queries: Queries, memory: Memory, prior: Tensor | None) -> Queries:
        asking = queries if self.aligner is None else self.aligner(queries, memory)
        if self.spatial_prior is not None and self.prior_after_aligner:
            prior = self.spatial_prior(asking, memory)
        content = queries.content + self.dropout(self.cross_attn(asking, memory, prior))
        return queries.with_content(self.norm2(content))
