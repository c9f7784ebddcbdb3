"""Decoders: ``(Queries, Memory, box_branches) -> DecoderOutput``."""

from .conditional import ConditionalDecoder
from .standard import DetrDecoder

__all__ = ["ConditionalDecoder", "DetrDecoder"]
