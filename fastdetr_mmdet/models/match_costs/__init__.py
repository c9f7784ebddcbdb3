"""Match costs in addition to mmdet's."""

from .position_modulated_cost import PositionModulatedFocalCost

__all__ = ["PositionModulatedFocalCost"]
