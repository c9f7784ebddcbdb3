"""Encoders: ``(Memory) -> Memory``."""

from .standard import DetrEncoder

__all__ = ["DetrEncoder"]
