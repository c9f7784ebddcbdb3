"""Compare the config with the checkpoint that a run starts from and with the run's length."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.optim.scheduler.param_scheduler import ConstantParamScheduler, _ParamScheduler
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from torch.distributed.fsdp import FullyShardedDataParallel

from ...checkpoints.embedded_config import EmbeddedConfigError, other_size, read_plain_config
from ...checkpoints.fine_tuning import start_from
from ...checkpoints.loading import fill, refusal, without_surplus
from ...datasets.wrappers import leaf_datasets
from ...models import FastDETR
from ...utils.cli import UserError
from .changes import unwrap

# A scheduler's state; all other attributes are settings.
_STATE = ("optimizer", "last_step", "_global_step", "_last_value", "verbose")
# Settings that an optimizer's state depends on; they stay as in the checkpoint.
_LAYOUT = ("params", "foreach", "fused", "capturable", "differentiable", "maximize")


@HOOKS.register_module()
class ResumeCheckHook(Hook):
    """Applies the config to a resumed training, and warns of schedules and weights that do not fit.

    - mmengine resumes learning rate, weight decay and schedulers with their former settings: a
      training of 2 epochs resumed with ``max_epochs=6`` keeps its last learning rate, and a new
      ``lr`` has no effect. With this hook, settings come from the config; weights, the optimizer's
      state and the position come from the checkpoint. A warning names settings that differ.
    - A warning names schedules that end before training does, or would continue after it.
    - Resuming with another optimizer or other parameter shapes is refused.
    - Weights that do not fit are logged; mmengine only prints them. A test is refused if weights of
      a FastDETR are missing.
    - A test warns if the image size differs from the checkpoint's config.
    - A FastDETR that starts from another one's weights (``load_from``) keeps the weights of classes
      with the same names, and logs in at most five lines what does not fit.
    - A warning appears if a finished training is resumed, or another run's folder is used.

    Schedulers that depend on metrics (``ReduceOnPlateauLR``) resume as in mmengine.

    Args:
        class_map: For ``load_from``: class name -> the checkpoint's name of the class.

    Raises:
        ValueError: before the first step.
    """

    def __init__(self, class_map: Mapping[str, str] | None = None) -> None:
        self.class_map = class_map or {}
        # Per optimizer, from the config: settings of its groups, and schedulers at the start.
        self._wanted: dict[str, tuple[list[dict], list[_ParamScheduler]]] = {}
        self._saved: Any = None
        self._lacking = self._other_size = ""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Log weights that do not fit, and keep settings that resuming will overwrite."""
        has_weights = "state_dict" in checkpoint or "meta" not in checkpoint  # DeepSpeed: elsewhere
        if has_weights and not isinstance(runner.model, FullyShardedDataParallel):
            model = unwrap(runner.model)
            if isinstance(model, FastDETR) and not runner._resume:
                self._load(runner, model, checkpoint)
            else:
                _load_checkpoint_to_model(model, checkpoint, strict=False, logger=runner.logger)
            self._other_size = other_size(runner.cfg, checkpoint)
        if not (runner._resume and checkpoint.get("optimizer")):
            return
        wrappers = optim_wrappers(runner)
        if list(wrappers) == [""]:
            _check_type(wrappers[""].optimizer, checkpoint.get("meta") or {})
        self._saved = checkpoint.get("param_schedulers")
        for name, wrapper in wrappers.items():
            groups = [
                {key: value for key, value in group.items() if key not in _LAYOUT}
                for group in wrapper.param_groups
            ]
            fresh = [copy.copy(scheduler) for scheduler in _of(runner.param_schedulers, name)]
            self._wanted[name] = groups, fresh

    def _load(self, runner: Runner, model: FastDETR, checkpoint: dict) -> None:
        """Load weights that fit, and log the others in a few lines instead of mmengine's list."""
        loop = runner._train_loop
        if not isinstance(loop, BaseLoop):  # a test needs all weights
            self._lacking = fill(model, checkpoint)
            checkpoint.update(without_surplus(model, checkpoint, runner.logger.warning))
            return
        _, data = next(leaf_datasets(loop.dataloader.dataset))
        own, file = data.metainfo["classes"], str(runner._load_from)
        for line in start_from(model, checkpoint, own, self.class_map, file):
            runner.logger.warning(f"load_from: {line}")

    def before_train(self, runner: Runner) -> None:
        """Apply the config to the resumed training, then compare schedules with its length."""
        loop, schedulers = runner.train_loop, runner.param_schedulers
        self._lacking = self._other_size = ""  # a test after training uses the trained weights
        if runner.iter >= loop.max_iters:
            runner.logger.warning(
                f"Nothing is left to train: all {loop.max_iters} iterations are done."
            )
        elif runner.iter == 0 and (Path(runner.work_dir) / "last_checkpoint").exists():
            runner.logger.warning(
                f"{runner.work_dir} holds another training, whose checkpoints will be overwritten. "
                "To continue it, use --resume; to keep it, another --work-dir."
            )
        wrappers = optim_wrappers(runner)
        for name, (groups, fresh) in self._wanted.items():
            if runner.iter == 0:  # load_from
                break
            _check_shapes(runner.model, wrappers[name])
            own = _of(schedulers, name)
            kept = {prefix + s.param_name for s in fresh for prefix in ("", "initial_")}
            if "momentum" in kept:  # Adam's first beta, too
                kept.add("betas")
            changes = _differences(fresh, _of(self._saved, name))
            if changes:
                replay(fresh, groups, loop)
                for scheduler, played in zip(own, fresh, strict=True):
                    vars(scheduler).update({**vars(played), "optimizer": scheduler.optimizer})
                kept = set()
            changes += _set_groups(wrappers[name].param_groups, groups, kept)
            if changes:
                runner.logger.warning(
                    "The config differs from the checkpoint (checkpoint -> config): "
                    f"{'; '.join(changes)}. Training follows the config."
                )
        for name in wrappers:
            for problem in find_unfit(_of(schedulers, name), loop):
                runner.logger.warning(problem)

    def before_test(self, runner: Runner) -> None:
        """Refuse to test random weights, and warn of a different image size."""
        if self._lacking:
            raise refusal(self._lacking, runner._load_from)
        if self._other_size:
            runner.logger.warning(self._other_size)


def optim_wrappers(runner: Runner) -> dict[str, OptimWrapper]:
    """Optimizer wrappers by name, "" for a single one; without DeepSpeed's and ColossalAI's."""
    wrapper = runner.optim_wrapper
    if isinstance(wrapper, OptimWrapperDict):
        return dict(wrapper.items())
    return {"": wrapper} if isinstance(wrapper, OptimWrapper) else {}


def _of(schedulers: Any, name: str) -> list:
    """Entries of one optimizer, from schedulers or their states."""
    return list((schedulers[name] if isinstance(schedulers, dict) else schedulers) or ())


# --------------------------------------------------------------------------------------------------
# Resuming


def _check_type(optimizer: Any, meta: dict) -> None:
    try:
        config = read_plain_config(meta.get("config") or "")
        saved = str(config["optim_wrapper"]["optimizer"]["type"]).rpartition(".")[2]
    except (EmbeddedConfigError, KeyError, TypeError):
        return  # the checkpoint does not name its optimizer
    present = type(optimizer).__name__
    if saved != present and {saved, present} != {"Adam", "AdamW"}:
        raise UserError(
            f"The checkpoint was trained by {saved}, whose state {present} cannot continue. Set "
            f"optim_wrapper.optimizer.type='{saved}', or start a new training from its weights: "
            "load_from with resume=False."
        )


def _check_shapes(model: Any, wrapper: OptimWrapper) -> None:
    names = {parameter: name for name, parameter in model.named_parameters()}
    unlike = [
        f"{names.get(parameter)} {tuple(state[key].shape)} -> {tuple(parameter.shape)}"
        for parameter, state in wrapper.optimizer.state.items()
        for key in ("exp_avg", "momentum_buffer")
        if getattr(state.get(key), "shape", parameter.shape) != parameter.shape
    ]
    if unlike:
        raise UserError(
            f"{len(unlike)} parameters differ in shape (checkpoint -> model): "
            f"{', '.join(unlike[:5])}. Resume with the same model, or start a new training from "
            "its weights: load_from with resume=False."
        )


def _differences(fresh: Sequence[_ParamScheduler], saved: Sequence[dict]) -> list[str]:
    """Settings that differ between the schedulers of config and checkpoint."""
    if any(hasattr(scheduler, "need_val_args") for scheduler in fresh):
        return []
    found = [
        f"param_scheduler.{index} ({type(scheduler).__name__}) {key}: {state[key]} -> {value}"
        for index, (scheduler, state) in enumerate(zip(fresh, saved, strict=False))
        for key, value in vars(scheduler).items()
        if key not in _STATE and not callable(value) and key in state and state[key] != value
    ]
    if len(fresh) != len(saved):
        found.append(f"number of schedulers: {len(saved)} -> {len(fresh)}")
    return found


def replay(schedulers: Sequence[_ParamScheduler], groups: list[dict], loop: Any) -> None:
    """Advance schedulers and the groups' values to the training's position."""
    length, done = len(loop.dataloader), loop.iter
    epochs = isinstance(loop, EpochBasedTrainLoop)
    if epochs and done // length != loop.epoch:  # the batch size has changed
        done = loop.epoch * length
    # mmengine's schedulers warn if `step` lacks this mark
    step = SimpleNamespace(_with_counter=True)
    optimizer = SimpleNamespace(param_groups=groups, step=step, _global_step=0)
    for scheduler in schedulers:
        scheduler.optimizer = optimizer
    for number in range(1, done + 1):
        for scheduler in schedulers:
            if not scheduler.by_epoch:
                scheduler.step()
        if epochs and number % length == 0:
            for scheduler in schedulers:
                if scheduler.by_epoch:
                    scheduler.step()


def _set_groups(groups: list[dict], wanted: list[dict], kept: set[str]) -> list[str]:
    """Set an optimizer's groups; return the changes of the first group that changes."""
    changes: list[str] = []
    for group, settings in zip(groups, wanted, strict=True):
        new = {k: v for k, v in settings.items() if k not in kept and group.get(k) != v}
        changes = changes or [f"optimizer {k}: {group.get(k)} -> {v}" for k, v in new.items()]
        group.update(new)
    return changes


# --------------------------------------------------------------------------------------------------
# Any training


def find_unfit(schedulers: Sequence[_ParamScheduler], loop: Any) -> Iterator[str]:
    """Describe schedules that end before training does or continue after it.

    A schedule that ends at its initial rate, such as a warm-up, may end at any time, and one with
    milestones after half of the training.
    """
    epochs = isinstance(loop, EpochBasedTrainLoop)
    length = loop.max_iters / loop.max_epochs if epochs else None
    last, name, decays, share = 0.0, "", False, 1.0
    for index, scheduler in enumerate(schedulers):
        own = f"param_scheduler.{index} ({type(scheduler).__name__})"
        if scheduler.by_epoch and not epochs:
            yield (
                f"{own} has no effect: it counts epochs, and {type(loop).__name__} has none. Set "
                "by_epoch=False and give its numbers in iterations."
            )
            continue
        key, ends = _last_step(scheduler)
        ends *= length if scheduler.by_epoch and length else 1
        if ends > loop.max_iters:
            yield (
                f"{own} would change {scheduler.param_name} up to {_where(ends, length)} ({key}), "
                f"but training ends after {_where(loop.max_iters, length)}. Set {key} to fit "
                "train_cfg, or leave out end and T_max, which then follow train_cfg."
            )
        constant = isinstance(scheduler, ConstantParamScheduler)
        decays |= not constant and getattr(scheduler, "end_factor", 0) != 1
        if ends > last:
            last, name, share = ends, own, 0.5 if key.endswith("milestones") else 1.0
    if decays and last < share * loop.max_iters:
        yield (
            f"{name} changes nothing after {_where(last, length)}, but training continues to "
            f"{_where(loop.max_iters, length)}. Set end, T_max or milestones to fit train_cfg, or "
            "leave out end and T_max, which then follow train_cfg."
        )


def _last_step(scheduler: _ParamScheduler) -> tuple[str, float]:
    """The setting that ends a schedule, and the step at which it ends."""
    begin, end = scheduler.begin, scheduler.end
    milestones = getattr(scheduler, "milestones", None)
    if milestones:
        return "milestones", begin + max(milestones) + 1
    if hasattr(scheduler, "step_size") and begin + scheduler.step_size > end:
        return "step_size", begin + scheduler.step_size
    if hasattr(scheduler, "T_max") and begin + scheduler.T_max != end:
        return "T_max", begin + scheduler.T_max
    return "end", end


def _where(iterations: float, length: float | None) -> str:
    return f"{iterations:g} iterations" + (f" ({iterations / length:g} epochs)" if length else "")
