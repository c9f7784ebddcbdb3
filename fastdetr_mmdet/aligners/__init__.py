"""Aligners: ``(Queries, Memory) -> Queries``, between self-attention and cross-attention."""

from .sam import SAMSemanticAligner

__all__ = ["SAMSemanticAligner"]
