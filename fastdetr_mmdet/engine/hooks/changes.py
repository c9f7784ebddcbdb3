"""Changes of hooks to a run's objects, reverted when the run ends or fails."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from torch import nn


class Changes(ExitStack):
    """Sets attributes of instances, and restores them when it is closed."""

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute."""
        own = vars(owner)
        if name in own:
            self.callback(setattr, owner, name, own[name])
        else:
            self.callback(own.pop, name, None)
        setattr(owner, name, value)


def run_within(runner: Runner, context: AbstractContextManager) -> None:
    """Let training, validation or test run within a context; for ``before_run`` of a hook.

    mmengine calls no hook when a run fails, so ``after_run`` alone would not take changes back.
    """
    # those that only have a config yet are not built
    both = (runner._train_loop, runner._val_loop, runner._test_loop)
    loops = [loop for loop in both if isinstance(loop, BaseLoop)]

    def wrapped(run: Any) -> Any:
        def run_outermost() -> Any:
            for loop in loops:  # a training runs validations
                vars(loop).pop("run", None)
            with context:
                return run()

        return run_outermost

    for loop in loops:
        vars(loop)["run"] = wrapped(loop.run)


def unwrap(model: Any) -> nn.Module:
    """The model within mmengine's wrappers for several processes."""
    return model.module if is_model_wrapper(model) else model
