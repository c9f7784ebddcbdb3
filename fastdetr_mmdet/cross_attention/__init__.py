"""Cross-attention: ``(Queries, Memory, spatial_prior) -> (bs, num_queries, embed_dims)``."""

from .conditional import ConditionalAttention
from .standard import MultiheadCrossAttention

__all__ = ["ConditionalAttention", "MultiheadCrossAttention"]
