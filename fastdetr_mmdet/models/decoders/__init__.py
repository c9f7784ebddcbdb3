"""Decoders: ``(Queries, Memory, box_branches) -> DecoderOutput``."""

from .conditional_decoder import ConditionalDecoder
from .detr_decoder import DetrDecoder

__all__ = ["ConditionalDecoder", "DetrDecoder"]
