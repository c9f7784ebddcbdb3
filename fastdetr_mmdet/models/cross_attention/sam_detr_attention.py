"""Cross-attention of SAM-DETR (Zhang et al. 2022, arXiv 2203.06883)."""

from __future__ import annotations

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...ops.dropout import drop_and_mix
from ...structures import Memory, Queries
from ..layers import MLP, OutProjection, attention_bias, biased, init_xavier
from ..parts import CrossAttention, Explanation


@MODELS.register_module()
class SAMAttention(CrossAttention):
    """Every head has its own query, as wide as the keys; all heads share the keys.

    Paper: SAM-DETR, Zhang et al. 2022, arXiv 2203.06883, Sec. 3.3.

    A query is the concatenation of the features at the salient points of all heads. Score of head
    h: ``(content_h + pos_h) . (key + key_pos) / sqrt(embed_dims)``; values are split between heads
    as usual. The official code copies the keys per head; this one does not. Without an aligner all
    heads use the query's own content and position.

    Args:
        embed_dims: Width.
        **context: As for ``LayerPart``.
    """

    def __init__(self, embed_dims: int, **context) -> None:
        super().__init__(embed_dims, **context)
        self.q_content_proj = nn.Linear(embed_dims, embed_dims)
        self.q_pos_proj = MLP(embed_dims, embed_dims, embed_dims, num_layers=2)
        self.k_content_proj = nn.Linear(embed_dims, embed_dims)
        self.k_pos_proj = MLP(embed_dims, embed_dims, embed_dims, num_layers=2)
        self.v_proj = nn.Linear(embed_dims, embed_dims)
        init_xavier(self)
        self.out_proj = OutProjection(embed_dims)

    def forward(
        self, queries: Queries, memory: Memory, spatial_prior: Tensor | None = None
    ) -> Tensor:
        """See ``CrossAttention.forward``."""
        weights = self._weights(queries, memory, spatial_prior)
        value = self.v_proj(memory.tokens).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        if self.training and self.dropout:
            attended = drop_and_mix(weights, value, self.dropout)
        else:
            attended = weights.to(value.dtype) @ value
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def explain(
        self, queries: Queries, memory: Memory, spatial_prior: Tensor | None = None
    ) -> Explanation:
        """Attention weights of ``forward``; see ``Explanation``."""
        weights = self._weights(queries, memory, spatial_prior).float()
        return Explanation(weights=weights.expand(-1, self.num_heads, -1, -1))

    def _weights(self, queries: Queries, memory: Memory, spatial_prior: Tensor | None) -> Tensor:
        """Attention weights, (bs, num_heads, num_queries, num_tokens); 1 head if all are equal."""
        if queries.salient is not None:
            content, pos = queries.salient.content, queries.salient.pos
        else:
            assert queries.pos is not None  # the decoder sets it
            content, pos = queries.content.unsqueeze(2), queries.pos.unsqueeze(2)
        query = self.q_content_proj(content) + self.q_pos_proj(pos)
        groups = query.shape[2]  # num_heads, or 1 if all heads share the query
        key = self.k_content_proj(memory.tokens) + self.k_pos_proj(memory.pos)
        # (bs, groups * num_queries, embed_dims): all heads in one product with the shared keys
        query = query.transpose(1, 2).flatten(1, 2) * query.shape[-1] ** -0.5
        scores = torch.matmul(query, key.transpose(1, 2)).unflatten(1, (groups, -1))
        return biased(scores, attention_bias(memory.attend_mask, spatial_prior)).softmax(-1)
