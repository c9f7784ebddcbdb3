"""Cross-attention: ``(Queries, Memory, spatial_prior) -> (bs, num_queries, embed_dims)``."""

from .conditional import ConditionalAttention
from .deformable import DeformableAttention
from .explanation import Explanation
from .sam import SAMAttention
from .smca import SMCAAttention
from .standard import MultiheadCrossAttention

__all__ = [
    "ConditionalAttention",
    "DeformableAttention",
    "Explanation",
    "MultiheadCrossAttention",
    "SAMAttention",
    "SMCAAttention",
]
