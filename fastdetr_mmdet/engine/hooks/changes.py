"""Changes of hooks to a run's objects, reverted when the run ends or fails."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from torch import nn


class Changes(ExitStack):
    """Sets attributes of instances, classes and modules, and restores them on close."""

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute."""
        own = vars(owner)
        if name in own:
            self.callback(setattr, owner, name, own[name])
        else:
            self.callback(own.pop, name, None)
        setattr(owner, name, value)


def run_within(runner: Runner, context: AbstractContextManager) -> None:
    """Run training, validation or test within a context; for a hook's ``before_run``.

    mmengine calls no hook when a run fails, so ``after_run`` would not revert changes then.
    """
    # a loop that is still a config is not built
    both = (runner._train_loop, runner._val_loop, runner._test_loop)
    loops = [loop for loop in both if isinstance(loop, BaseLoop)]

    def wrapped(run: Any) -> Any:
        def run_outermost() -> Any:
            for loop in loops:  # training runs validations
                vars(loop).pop("run", None)
            with context:
                return run()

        return run_outermost

    for loop in loops:
        vars(loop)["run"] = wrapped(loop.run)


def unwrap(model: Any) -> nn.Module:
    """Return the model inside mmengine's wrappers for distributed training."""
    return model.module if is_model_wrapper(model) else model
