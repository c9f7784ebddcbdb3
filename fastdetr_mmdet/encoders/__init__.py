"""Encoders: ``(Memory) -> Memory``."""

from .deformable import DeformableDetrEncoder
from .smca import SMCAEncoder
from .smca_conv import SMCAConvEncoder
from .standard import DetrEncoder

__all__ = ["DeformableDetrEncoder", "DetrEncoder", "SMCAConvEncoder", "SMCAEncoder"]
