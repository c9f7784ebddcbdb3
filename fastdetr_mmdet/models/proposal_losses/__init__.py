"""Losses of encoder proposals in the place of the set loss."""

from .dense_proposal_loss import DenseProposalLoss

__all__ = ["DenseProposalLoss"]
