"""Matchers: which query answers for which object."""

from .hungarian_matcher import HungarianMatcher
from .matcher import AssignerMatcher, Call, Matcher, Matches

__all__ = ["AssignerMatcher", "Call", "HungarianMatcher", "Matcher", "Matches"]
