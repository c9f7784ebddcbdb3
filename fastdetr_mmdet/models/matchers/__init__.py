"""Matchers: which query answers for which object."""

from .hungarian_matcher import HungarianMatcher
from .matcher import AssignerMatcher, Call, Matcher, Matches
from .score_matcher import ScoreMatcher

__all__ = ["AssignerMatcher", "Call", "HungarianMatcher", "Matcher", "Matches", "ScoreMatcher"]
