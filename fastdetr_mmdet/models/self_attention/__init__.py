"""Self-attention among queries: ``(Queries) -> (bs, num_queries, embed_dims)``."""

from .conditional_self_attention import ConditionalSelfAttention
from .multihead_self_attention import MultiheadSelfAttention
from .relation_self_attention import RelationSelfAttention

__all__ = ["ConditionalSelfAttention", "MultiheadSelfAttention", "RelationSelfAttention"]
