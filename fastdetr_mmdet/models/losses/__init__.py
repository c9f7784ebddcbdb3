"""Class losses whose target is the quality of the matched box."""

from .quality_losses import IABCELoss, MALLoss, PositionSupervisedLoss, QualityLoss

__all__ = ["IABCELoss", "MALLoss", "PositionSupervisedLoss", "QualityLoss"]
