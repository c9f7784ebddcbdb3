"""Conditional cross-attention (Meng et al. 2021, arXiv 2108.06152)."""

from __future__ import annotations

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...structures import Memory, Queries
from ..layers import OutProjection, init_xavier, project
from ..parts import Field
from .multihead_cross_attention import DenseAttention


@MODELS.register_module()
class ConditionalAttention(DenseAttention):
    """Cross-attention whose score is a content part plus a spatial part.

    Paper: Conditional DETR, Meng et al. 2021, arXiv 2108.06152, Sec. 3.2, Eq. 2.

    Query and key are, per head, the concatenation of content and spatial part, so the score is
    ``c_q . c_k + p_q . p_k``, scaled by 1 / sqrt(2 * embed_dims / num_heads). The spatial query p_q
    comes with the queries (``Queries.conditional``, made by ``ConditionalDecoder``).

    With an aligner, head h uses the features at its salient point as content, and T times the
    point's embedding as spatial query.

    As in the official code, and unlike the paper, the first decoder layer also adds the projected
    positions to the content parts, because its content queries are still zero.

    Args:
        embed_dims: Width.
        **context: As for ``LayerPart``.
    """

    reads = DenseAttention.reads | {Field.SPATIAL}

    def __init__(self, embed_dims: int, **context) -> None:
        super().__init__(embed_dims, **context)
        self.q_content_proj = nn.Linear(embed_dims, embed_dims)
        self.q_pos_proj = nn.Linear(embed_dims, embed_dims) if self.layer_index == 0 else None
        self.q_spatial_proj = nn.Linear(embed_dims, embed_dims)
        self.k_content_proj = nn.Linear(embed_dims, embed_dims)
        self.k_pos_proj = nn.Linear(embed_dims, embed_dims)
        self.v_proj = nn.Linear(embed_dims, embed_dims)
        init_xavier(self)
        self.out_proj = OutProjection(embed_dims)

    def _project(self, queries: Queries, memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
        """Project; query and key are 2 * embed_dims wide."""
        conditional = queries.conditional
        assert conditional is not None  # check_flow guarantees it
        content, spatial = queries.content, conditional.spatial
        if queries.salient is not None:
            content, spatial = queries.salient.content, queries.salient.pos
            if conditional.scale is not None:
                spatial = spatial * conditional.scale.unsqueeze(2)
        query = project(self.q_content_proj, content, self.num_heads)
        key = self.k_content_proj(memory.tokens)
        key_pos = self.k_pos_proj(memory.pos)
        if self.q_pos_proj is not None:
            query = query + self.q_pos_proj(queries.pos)
            key = key + key_pos
        spatial = project(self.q_spatial_proj, spatial, self.num_heads)
        value = self.v_proj(memory.tokens)
        return self._join(query, spatial), self._join(key, key_pos), value

    def _join(self, content: Tensor, spatial: Tensor) -> Tensor:
        """Concatenate per head: (bs, tokens, embed_dims) twice -> (bs, tokens, 2 * embed_dims)."""
        parts = [x.unflatten(-1, (self.num_heads, -1)) for x in (content, spatial)]
        return torch.cat(parts, dim=-1).flatten(2)
