"""Sampling of feature maps at a few points, the core of deformable attention."""

from .deformable import sample_and_sum

__all__ = ["sample_and_sum"]
