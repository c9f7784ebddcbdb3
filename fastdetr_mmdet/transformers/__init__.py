"""Transformers: compose encoder, query initialiser and decoder."""

from .deformable import DeformableDetrTransformer
from .standard import DetrTransformer

__all__ = ["DeformableDetrTransformer", "DetrTransformer"]
