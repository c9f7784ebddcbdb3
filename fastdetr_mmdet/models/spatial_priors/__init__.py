"""Spatial priors: ``(Queries, Memory) -> (bs, num_heads, num_queries, num_tokens)``."""

from .gaussian_prior import GaussianPrior
from .salient_gaussian_prior import SalientGaussianPrior

__all__ = ["GaussianPrior", "SalientGaussianPrior"]
