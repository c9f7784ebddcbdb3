"""Spatial priors: ``(Queries, Memory) -> (bs, num_heads, num_queries, num_tokens)``."""

from .gaussian import GaussianPrior
from .salient import SalientGaussianPrior

__all__ = ["GaussianPrior", "SalientGaussianPrior"]
