"""The package version, in a separate file so that builds can read it without importing mmdet."""

__version__ = "0.1.0"
