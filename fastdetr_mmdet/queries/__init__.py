"""Query initialisers: ``(Memory) -> (Queries, Proposals or None)``."""

from .learned import LearnedQueries

__all__ = ["LearnedQueries"]
