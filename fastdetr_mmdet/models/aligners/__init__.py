"""Aligners: ``(Queries, Memory) -> Queries``, between self-attention and cross-attention."""

from .sam_detr_aligner import SAMSemanticAligner

__all__ = ["SAMSemanticAligner"]
