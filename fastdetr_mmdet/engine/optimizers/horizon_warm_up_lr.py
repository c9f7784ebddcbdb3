"""Warm-up over a share of the whole training."""

from __future__ import annotations

from typing import Any

from mmdet.registry import PARAM_SCHEDULERS
from mmengine.optim import LinearLR


@PARAM_SCHEDULERS.register_module()
class HorizonWarmUpLR(LinearLR):
    """mmengine's LinearLR over a share of the training, however long that is.

    On a few hundred images a usual warm-up of some hundred steps is the first epochs. A schedule
    with this and mmengine's ``CosineAnnealingLR(by_epoch=True, convert_to_iter_based=True)`` has no
    number to change with the length of the training or the size of the data set.

    Args:
        optimizer: Optimizer or its wrapper; the runner gives it.
        share: Of all steps; between 0 and 1.
        most: Steps at most.
        start_factor: What the first step's learning rate is multiplied by.
        end: All steps of the training; the runner gives it.
        by_epoch: Must be False: without it the runner counts ``end`` in epochs.
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
        # LinearLR rises within 2 steps at least
        steps = max(2, min(most, round(share * end)))
        super().__init__(optimizer, start_factor=start_factor, end=steps, by_epoch=False, **kwargs)
