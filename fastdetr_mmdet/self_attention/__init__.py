"""Self-attention among queries: ``(Queries) -> (bs, num_queries, embed_dims)``."""

from .conditional import ConditionalSelfAttention
from .standard import MultiheadSelfAttention

__all__ = ["ConditionalSelfAttention", "MultiheadSelfAttention"]
