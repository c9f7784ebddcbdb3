"""Optimizer wrapper constructors and schedules."""

from .grouped_constructor import GroupedOptimWrapperConstructor
from .horizon_warm_up_lr import HorizonWarmUpLR

__all__ = ["GroupedOptimWrapperConstructor", "HorizonWarmUpLR"]
