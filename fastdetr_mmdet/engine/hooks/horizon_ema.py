"""Average the weights over a share of the whole training."""

from __future__ import annotations

from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import EMAHook
from mmengine.runner import FlexibleRunner, Runner


@HOOKS.register_module()
class HorizonEMAHook(EMAHook):
    """mmengine's EMAHook with a momentum that fits the length of the training.

    The usual momentum on COCO, 0.0002, averages over 5,000 steps, which is more than a training on
    a few hundred images has. This hook averages over ``share`` of all steps of the run, and over
    fewer at the beginning (mmdet's ``ExpMomentumEMA``). As with mmengine's hook, validation, tests
    and checkpoints use the averaged weights.

    Args:
        share: Share of all steps; between 0 and 1.
        **kwargs: As for mmengine's ``EMAHook``.

    Raises:
        ValueError: if share is out of range.
        TypeError: if the runner is mmengine's ``FlexibleRunner`` (FSDP, DeepSpeed, ColossalAI),
            whose sharded weights mmengine's hook cannot copy.
    """

    def __init__(self, share: float = 0.05, **kwargs: Any) -> None:
        if not 0 < share < 1:
            raise ValueError(f"HorizonEMAHook: share={share} must be between 0 and 1.")
        super().__init__(ema_type="ExpMomentumEMA", **kwargs)
        self.share = share

    def before_run(self, runner: Runner) -> None:
        """Build the average."""
        self._refuse_shards(runner)
        steps = max(2.0, self.share * runner.max_iters)  # max_iters is 0 in a test
        self.ema_cfg |= dict(momentum=1 / steps, gamma=steps / 2)
        super().before_run(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Load the average; a ``FlexibleRunner`` loads before ``before_run``."""
        self._refuse_shards(runner)
        super().after_load_checkpoint(runner, checkpoint)

    @staticmethod
    def _refuse_shards(runner: Runner) -> None:
        if isinstance(runner, FlexibleRunner):
            raise TypeError(
                "default_hooks.ema: HorizonEMAHook does not work with FlexibleRunner "
                f"(strategy {type(runner.strategy).__name__}). Train with DDP (a config without "
                "runner_type and strategy), or take a config without default_hooks.ema."
            )
