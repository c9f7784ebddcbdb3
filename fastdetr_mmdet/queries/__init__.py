"""Query initialisers: ``(Memory, proposal branches) -> (Queries, Proposals or None)``."""

from .learned import LearnedQueries
from .two_stage import TwoStageQueries

__all__ = ["LearnedQueries", "TwoStageQueries"]
