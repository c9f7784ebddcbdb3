"""One decoder layer, made of the parts that the config names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mmdet.registry import MODELS
from torch import Tensor, nn

from ...ops.dropout import Dropout
from ...structures import Memory, Queries
from ..layers import FeedForward
from ..parts import Aligner, CrossAttention, SelfAttention, SpatialPrior, check_role


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward, each with residual and post-norm.

    Two optional parts come between self-attention and cross-attention:

    * ``aligner(queries, memory) -> Queries``: changes what the cross-attention takes as queries, or
      hands salient points on as ``Queries.salient`` (SAM-DETR); the residual stream stays.
    * ``spatial_prior(queries, memory) -> (bs, num_heads or 1, num_queries, num_tokens)``: is added
      to the scores (SMCA). It sees the layer's input queries; with ``needs_salient`` what the
      aligner has made of them.

    Parts with ``reads_embedded`` find the layer's normed input query in ``Queries.embedded``.

    Args:
        embed_dims: Width.
        num_heads: Default for parts whose config does not set it.
        feedforward_channels: Hidden width of the feed-forward block.
        dropout: Dropout of residual branches, and default for the parts.
        self_attn, cross_attn, aligner, spatial_prior: Part configs; the last two may be None.
        layer_index: Position in the decoder; parts that differ in the first layer are told.

    Raises:
        ValueError: if two parts do not fit together.
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
        self.spatial_prior: nn.Module | None = None
        if spatial_prior:
            self.spatial_prior = MODELS.build(spatial_prior, default_args=shared)
        for_aligner = dict(shared)
        if getattr(self.spatial_prior, "needs_salient", False):
            for_aligner["predict_scales"] = True
        self.aligner: nn.Module | None = None
        if aligner:
            self.aligner = MODELS.build(aligner, default_args=for_aligner)
        self.cross_attn = MODELS.build(cross_attn, default_args=attention)
        for part, base, key in (
            (self.self_attn, SelfAttention, "self_attn"),
            (self.cross_attn, CrossAttention, "cross_attn"),
            (self.aligner, Aligner, "aligner"),
            (self.spatial_prior, SpatialPrior, "spatial_prior"),
        ):
            if part is not None:
                check_role(part, base, f"transformer.decoder.{key}")
        self._check_parts()
        self.input_norm: nn.LayerNorm | None = None
        if any(getattr(part, "reads_embedded", False) for part in self.parts):
            self.input_norm = nn.LayerNorm(embed_dims)
        self.norm2 = nn.LayerNorm(embed_dims)
        self.ffn = FeedForward(embed_dims, feedforward_channels, dropout)
        self.norm3 = nn.LayerNorm(embed_dims)
        self.dropout = Dropout(dropout)

    @property
    def parts(self) -> list[nn.Module]:
        """The parts that work on the memory."""
        parts = (self.cross_attn, self.aligner, self.spatial_prior)
        return [part for part in parts if part is not None]

    def _check_parts(self) -> None:
        attention = type(self.cross_attn).__name__
        prior = type(self.spatial_prior).__name__
        if self.spatial_prior and not getattr(self.cross_attn, "takes_spatial_prior", True):
            raise ValueError(
                f"{attention} has no attention matrix to which {prior} could add; drop "
                "spatial_prior or choose a dense cross-attention such as ConditionalAttention."
            )
        if self.aligner is None and getattr(self.spatial_prior, "needs_salient", False):
            raise ValueError(
                f"{prior} is centred on the salient points of an aligner, but there is none; set "
                "transformer.decoder.aligner to dict(type='SAMSemanticAligner') or use "
                "GaussianPrior."
            )
        if self.aligner is not None:
            heads = [getattr(part, "num_heads", None) for part in (self.aligner, self.cross_attn)]
            if None not in heads and heads[0] != heads[1]:
                raise ValueError(
                    f"{type(self.aligner).__name__} has num_heads={heads[0]} and {attention} has "
                    f"num_heads={heads[1]}; leave both out, the decoder's num_heads is taken over."
                )

    def locate(self, queries: Queries) -> Queries:
        """The queries with the references that the spatial prior predicts (first layer only)."""
        prior: Any = self.spatial_prior
        return prior.locate(self.embed(queries))

    def embed(self, queries: Queries) -> Queries:
        """The queries with ``embedded`` set, if a part reads it."""
        if self.input_norm is None:
            return queries
        return replace(queries, embedded=self.input_norm(queries.located))

    def forward(self, queries: Queries, memory: Memory) -> Tensor:
        """The queries' new content, (bs, num_queries, embed_dims)."""
        queries = self.embed(queries)
        prior: Tensor | None = None
        after_aligner = getattr(self.spatial_prior, "needs_salient", False)
        if self.spatial_prior is not None and not after_aligner:
            prior = self.spatial_prior(queries, memory)
        content = self.norm1(queries.content + self.dropout(self.self_attn(queries)))
        queries = queries.with_content(content)
        if self.aligner is not None:
            queries = self.aligner(queries, memory)
        if self.spatial_prior is not None and after_aligner:
            prior = self.spatial_prior(queries, memory)
        content = self.norm2(content + self.dropout(self.cross_attn(queries, memory, prior)))
        return self.norm3(content + self.dropout(self.ffn(content)))
