"""Query initialisers: ``(Memory, proposal branches) -> (Queries, Proposals or None)``."""

from .learned import LearnedQueries
from .learned_boxes import LearnedBoxQueries
from .two_stage import TwoStageQueries

__all__ = ["LearnedBoxQueries", "LearnedQueries", "TwoStageQueries"]
