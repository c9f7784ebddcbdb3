"""Self-attention of Conditional DETR: content and position have separate projections."""

from __future__ import annotations

from mmdet.registry import MODELS
from torch import Tensor, nn

from ...structures import Queries
from ..layers import OutProjection, attend, init_xavier
from ..parts import Field, SelfAttention


@MODELS.register_module()
class ConditionalSelfAttention(SelfAttention):
    """Self-attention that sums separate projections of content and position.

    Paper: Conditional DETR, Meng et al. 2021, arXiv 2108.06152, Sec. 3.3 (the paper keeps DETR's
    self-attention; the separate projections are the official code's). Values are projections of the
    content only.

    Args:
        embed_dims: Width.
        **context: As for ``LayerPart``.
    """

    reads = frozenset({Field.MASK})

    def __init__(self, embed_dims: int, **context) -> None:
        super().__init__(embed_dims, **context)
        self.q_content_proj = nn.Linear(embed_dims, embed_dims)
        self.q_pos_proj = nn.Linear(embed_dims, embed_dims)
        self.k_content_proj = nn.Linear(embed_dims, embed_dims)
        self.k_pos_proj = nn.Linear(embed_dims, embed_dims)
        self.v_proj = nn.Linear(embed_dims, embed_dims)
        init_xavier(self)
        self.out_proj = OutProjection(embed_dims)

    def forward(self, queries: Queries) -> Tensor:
        """See ``SelfAttention.forward``."""
        content, pos = queries.content, queries.pos
        query = self.q_content_proj(content) + self.q_pos_proj(pos)
        key = self.k_content_proj(content) + self.k_pos_proj(pos)
        value = self.v_proj(content)
        dropout = self.dropout if self.training else 0.0
        output = attend(query, key, value, self.num_heads, queries.attend_mask, dropout)
        return self.out_proj(output)
