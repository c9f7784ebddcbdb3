"""Helpers of several test modules; importable as ``support`` because tests/ is on the path."""
