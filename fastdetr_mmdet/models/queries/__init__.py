"""Query initialisers: ``(Memory, proposal branches, Targets) -> (Queries, Proposals or None)``."""

from .denoising_queries import DenoisingQueries
from .group_queries import GroupQueries
from .hybrid_queries import HybridQueries
from .learned_box_queries import LearnedBoxQueries
from .learned_queries import LearnedQueries
from .two_stage_queries import TwoStageQueries

__all__ = [
    "DenoisingQueries",
    "GroupQueries",
    "HybridQueries",
    "LearnedBoxQueries",
    "LearnedQueries",
    "TwoStageQueries",
]
