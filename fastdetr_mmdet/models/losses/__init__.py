"""Class losses whose target is the quality of the matched box."""

from .ia_bce_loss import IABCELoss
from .mal_loss import MALLoss
from .position_supervised_loss import PositionSupervisedLoss
from .quality_loss import QualityLoss

__all__ = ["IABCELoss", "MALLoss", "PositionSupervisedLoss", "QualityLoss"]
