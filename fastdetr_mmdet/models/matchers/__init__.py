"""Matchers: which query answers for which object."""

from .hungarian_matcher import HungarianMatcher, Matches

__all__ = ["HungarianMatcher", "Matches"]
