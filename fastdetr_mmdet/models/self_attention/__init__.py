"""Self-attention among queries: ``(Queries) -> (bs, num_queries, embed_dims)``."""

from .conditional_self_attention import ConditionalSelfAttention
from .multihead_self_attention import MultiheadSelfAttention

__all__ = ["ConditionalSelfAttention", "MultiheadSelfAttention"]
