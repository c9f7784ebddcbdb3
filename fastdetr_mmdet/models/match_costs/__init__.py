"""Match costs beside mmdet's."""

from .position_modulated_cost import PositionModulatedFocalCost

__all__ = ["PositionModulatedFocalCost"]
