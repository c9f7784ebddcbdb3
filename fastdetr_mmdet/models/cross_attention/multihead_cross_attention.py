"""Plain cross-attention of DETR (Carion et al. 2020, arXiv 2005.12872)."""

from __future__ import annotations

from mmdet.registry import MODELS
from torch import Tensor

from ...structures import Memory, Queries
from ..layers import InProjection, OutProjection, attend, attention_bias, attention_weights
from ..parts import CrossAttention, Explanation


class DenseAttention(CrossAttention):
    """Base class of attentions whose heads each take a chunk of query, key and value.

    Attributes:
        out_proj: Output projection of the concatenated heads.
    """

    out_proj: OutProjection

    def forward(
        self, queries: Queries, memory: Memory, spatial_prior: Tensor | None = None
    ) -> Tensor:
        """See ``CrossAttention.forward``."""
        query, key, value = self._project(queries, memory)
        bias = attention_bias(memory.attend_mask, spatial_prior)
        dropout = self.dropout if self.training else 0.0
        return self.out_proj(attend(query, key, value, self.num_heads, bias, dropout))

    def explain(
        self, queries: Queries, memory: Memory, spatial_prior: Tensor | None = None
    ) -> Explanation:
        """Attention weights of ``forward``; see ``Explanation``."""
        query, key, _ = self._project(queries, memory)
        bias = attention_bias(memory.attend_mask, spatial_prior)
        return Explanation(weights=attention_weights(query, key, self.num_heads, bias))

    def _project(self, queries: Queries, memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value of all heads.

        Shape:
            returns: (bs, num_queries, dims), (bs, num_tokens, dims), (bs, num_tokens, embed_dims)
        """
        raise NotImplementedError


@MODELS.register_module()
class MultiheadCrossAttention(DenseAttention):
    """Dense attention from queries to memory, positions added to query and key.

    Paper: DETR, Carion et al. 2020, arXiv 2005.12872, appendix A.1. No difference.

    Args:
        embed_dims: Width.
        **context: As for ``LayerPart``.
    """

    def __init__(self, embed_dims: int, **context) -> None:
        super().__init__(embed_dims, **context)
        self.in_proj = InProjection(embed_dims)
        self.out_proj = OutProjection(embed_dims)

    def _project(self, queries: Queries, memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
        return self.in_proj(queries.located, memory.located, memory.tokens, self.num_heads)
