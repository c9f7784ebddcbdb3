"""Cross-attention: ``(Queries, Memory, spatial_prior) -> (bs, num_queries, embed_dims)``."""

from ..parts import Explanation
from .conditional_attention import ConditionalAttention
from .deformable_attention import DeformableAttention
from .multihead_cross_attention import MultiheadCrossAttention
from .sam_detr_attention import SAMAttention
from .smca_attention import SMCAAttention

__all__ = [
    "ConditionalAttention",
    "DeformableAttention",
    "Explanation",
    "MultiheadCrossAttention",
    "SAMAttention",
    "SMCAAttention",
]
