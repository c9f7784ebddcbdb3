"""Losses of encoder proposals instead of the set loss."""

from .dense_proposal_loss import DenseProposalLoss

__all__ = ["DenseProposalLoss"]
