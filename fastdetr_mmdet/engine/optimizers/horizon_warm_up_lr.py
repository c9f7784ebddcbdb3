"""Warm-up over a share of the whole training."""

from __future__ import annotations

from typing import Any

from mmdet.registry import PARAM_SCHEDULERS
from mmengine.optim import LinearLR


@PARAM_SCHEDULERS.register_module()
class HorizonWarmUpLR(LinearLR):
    """mmengine's LinearLR over a share of the training.

    On a few hundred images, a usual warm-up of some hundred steps takes several epochs. A schedule
    of this and mmengine's ``CosineAnnealingLR(by_epoch=True, convert_to_iter_based=True)`` fits any
    length of training and size of dataset.

    Args:
        optimizer: Optimizer or its wrapper; the runner passes it.
        share: Share of all steps; between 0 and 1.
        most: Maximum number of steps.
        start_factor: Factor of the learning rate in the first step.
        end: Number of all steps; the runner passes it.
        by_epoch: Must be False, so that the runner passes ``end`` in steps.
        **kwargs: As for mmengine's ``LinearLR``.

    Raises:
        ValueError: if share is out of range or by_epoch is not False.
    """

    def __init__(
        self,
        optimizer: Any,
        share: float = 0.05,
        most: int = 200,
        start_factor: float = 0.04,
        end: int = 10**9,
        by_epoch: bool = True,
        **kwargs: Any,
    ) -> None:
        if not 0 < share < 1:
            raise ValueError(f"HorizonWarmUpLR: share={share} must be between 0 and 1.")
        if by_epoch:
            raise ValueError("HorizonWarmUpLR counts steps: set by_epoch=False in param_scheduler.")
        # LinearLR needs at least 2 steps
        steps = max(2, min(most, round(share * end)))
        super().__init__(optimizer, start_factor=start_factor, end=steps, by_epoch=False, **kwargs)
