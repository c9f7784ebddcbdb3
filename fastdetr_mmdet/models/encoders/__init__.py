"""Encoders: ``(Memory) -> Memory``."""

from .deformable_detr_encoder import DeformableDetrEncoder
from .detr_encoder import DetrEncoder
from .hybrid_encoder import HybridEncoder
from .smca_conv_encoder import SMCAConvEncoder
from .smca_encoder import SMCAEncoder

__all__ = [
    "DeformableDetrEncoder",
    "DetrEncoder",
    "HybridEncoder",
    "SMCAConvEncoder",
    "SMCAEncoder",
]
