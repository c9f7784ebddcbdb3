"""Plain self-attention of DETR (Carion et al. 2020, arXiv 2005.12872)."""

from __future__ import annotations

from mmdet.registry import MODELS
from torch import Tensor

from ...structures import Queries
from ..layers import InProjection, OutProjection, attend
from ..parts import Field, SelfAttention


@MODELS.register_module()
class MultiheadSelfAttention(SelfAttention):
    """Self-attention with the positional part added to query and key before one projection.

    Paper: Transformer, Vaswani et al. 2017, arXiv 1706.03762, Sec. 3.2.2, as DETR uses it. No
    difference.

    Args:
        embed_dims: Width.
        **context: As for ``LayerPart``.
    """

    reads = frozenset({Field.MASK})

    def __init__(self, embed_dims: int, **context) -> None:
        super().__init__(embed_dims, **context)
        self.in_proj = InProjection(embed_dims)
        self.out_proj = OutProjection(embed_dims)

    def forward(self, queries: Queries) -> Tensor:
        """See ``SelfAttention.forward``."""
        located = queries.located
        query, key, value = self.in_proj(located, located, queries.content)
        dropout = self.dropout if self.training else 0.0
        output = attend(query, key, value, self.num_heads, queries.attend_mask, dropout)
        return self.out_proj(output)
