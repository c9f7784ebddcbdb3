"""Matchers: which query answers for which object."""

from .hungarian import HungarianMatcher, Matches

__all__ = ["HungarianMatcher", "Matches"]
