"""Matchers: assign objects to queries."""

from .hungarian_matcher import HungarianMatcher
from .matcher import DENSE_ASSIGNERS, AssignerMatcher, Call, Matcher, Matches
from .score_matcher import ScoreMatcher

__all__ = [
    "DENSE_ASSIGNERS",
    "AssignerMatcher",
    "Call",
    "HungarianMatcher",
    "Matcher",
    "Matches",
    "ScoreMatcher",
]
