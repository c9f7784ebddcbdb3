"""Transformers: compose encoder, query initialiser and decoder."""

from .standard import DetrTransformer

__all__ = ["DetrTransformer"]
