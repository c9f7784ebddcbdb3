"""Transformers: compose encoder, query initialiser and decoder."""

from .deformable_detr_transformer import DeformableDetrTransformer
from .detr_transformer import DetrTransformer

__all__ = ["DeformableDetrTransformer", "DetrTransformer"]
