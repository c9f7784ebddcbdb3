"""Stop a training with a non-finite loss or gradient before the weights change."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce, barrier, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.modules.batchnorm import _BatchNorm

from ...models.heads import FastDETRHead
from ...models.matchers import Call, Matches
from ...structures.targets import name_image
from ...utils.cli import UserError
from ...utils.plain_data import save_plain_data
from .changes import Changes, run_within, unwrap
from .resume_check import optim_wrappers

KEY = "numbers_check"  # key in the checkpoint


class NotFiniteError(UserError):
    """A loss or gradient that is NaN or infinite."""


@dataclass
class _Update:
    """State of the current update of the weights."""

    batches: list[Any] = field(default_factory=list)  # several when gradients are accumulated
    losses: list[dict[str, Tensor]] = field(default_factory=list)  # of every batch, on the device
    failure: ValueError | None = None  # error of the matcher
    fatal: bool = False  # the error is not about NaN, so skipping does not help
    bad_loss: bool = False  # in an earlier batch of the update
    bad_gradient: bool = False
    parameters: list[str] = field(default_factory=list)  # first ones with such gradients
    loss_scale: float | None = None  # loss scale of the overflow
    settled: bool = False  # the update was skipped


@HOOKS.register_module()
class NumbersCheckHook(Hook):
    """Stops at a NaN or infinite loss or gradient, and names images, loss term and layer.

    It stops before the weights and the running statistics of batch norms change. No checkpoint is
    written. ``work_dir/debug/iter_<n>.pth`` holds the batch, the weights and the config (each
    process writes its own batch, rank 0 also the weights). All processes stop at the same update,
    because all see the sum of the gradients. mmdet's ``CheckInvalidLossHook`` checks every 50
    steps, after the weights have changed.

    It does not synchronise with the device: ``clip_grad`` and the log need the gradient's norm and
    the losses on the host anyway, and the matcher checks the outputs. Only without ``clip_grad`` by
    norm it waits once per step.

    With a loss scaler (fp16), gradients overflow now and then, and the scaler skips those steps.
    They are not errors as long as the loss is finite and the scale is at least ``min_loss_scale``.

    Args:
        max_skips: Number of updates to skip with a warning before training stops; counted across
            resumes.
        min_loss_scale: Smallest loss scale at which an overflow is not an error.

    Raises:
        NotFiniteError: from the training step.
    """

    # after the hook that records losses (VERY_HIGH), before those that log and save
    priority = "ABOVE_NORMAL"

    def __init__(self, max_skips: int = 0, min_loss_scale: float = 2.0**-10) -> None:
        if max_skips < 0:
            raise ValueError(f"NumbersCheckHook: max_skips={max_skips} must not be negative.")
        self.max_skips = max_skips
        self.min_loss_scale = min_loss_scale
        self._skipped = 0
        self._loaded: dict[str, Any] = {}
        self._update = _Update()
        # batch norm, running statistic, copy of it
        self._statistics: list[tuple[nn.Module, Tensor, Tensor]] = []
        self._changes = Changes()

    def before_run(self, runner: Runner) -> None:
        """Restore model and optimizer at the end, even if training fails."""
        run_within(runner, self._changes)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember skipped updates; only before_train knows whether training resumes."""
        self._loaded = checkpoint.get(KEY) or {}

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the number of skipped updates, including the current one if it will be skipped."""
        if self._skipped:
            checkpoint[KEY] = dict(skipped=self._skipped, settled=self._update.settled)

    def before_train(self, runner: Runner) -> None:
        """Start to check the model and the optimizer."""
        if runner.iter > 0:  # load_from starts at 0
            self._skipped = self._loaded.get("skipped", 0)
            self._update.settled = self._loaded.get("settled", False)
        model = unwrap(runner.model)
        self._changes.callback(model.register_forward_hook(self._note_losses).remove)
        head = getattr(model, "bbox_head", None)
        if isinstance(head, FastDETRHead):
            match = functools.partial(self._match, head.assigner.match_all)
            self._changes.set(head.assigner, "match_all", match)
        for wrapper in optim_wrappers(runner).values():
            self._watch(runner, wrapper)
        self._statistics = [
            (module, buffer, buffer.clone())
            for module in model.modules()
            if isinstance(module, _BatchNorm) and module.track_running_stats
            for buffer in (module.running_mean, module.running_var)
            if buffer is not None
        ]

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep the batch and a copy of the statistics that it will change."""
        self._update.batches.append(data_batch)
        for module, buffer, copy in self._statistics:
            if module.training:  # backbones' norms are usually frozen
                copy.copy_(buffer, non_blocking=True)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Check the losses, which the log has copied to the host, and the loss scale."""
        update, wrappers = self._update, list(optim_wrappers(runner).values())
        scalars = runner.message_hub.log_scalars
        logged = [scalars[key] for name in outputs or () if (key := f"train/{name}") in scalars]
        bad = not all(math.isfinite(values.current()) for values in logged)
        if not all(wrapper.should_update() for wrapper in wrappers):  # gradients are accumulated
            if bad:
                update.bad_loss = True
                self._restore_statistics()
                _forget_last(logged)
                if get_world_size() == 1:
                    # Not at the update, because a checkpoint may come before it. Other processes
                    # see the gradient at the update.
                    self._stop_or_skip(runner, alone=True)
                    for wrapper in wrappers:
                        wrapper.zero_grad()
            return
        if bad or update.bad_loss:
            self._stop_or_skip(runner, alone=True)
        elif not update.settled and (update.bad_gradient or self.every_n_train_iters(runner, 50)):
            scales = [w.loss_scaler.get_scale() for w in wrappers if _scales(w)]
            if scales and min(scales) < self.min_loss_scale:
                update.loss_scale = min(scales)
                self._stop_or_skip(runner, alone=False)
        if update.settled:
            norm = scalars.get("train/grad_norm")
            _forget_last([*logged, norm] if norm is not None else logged)
        self._update = _Update()

    # ----------------------------------------------------------------------------------------------
    # Functions that replace others during the step

    def _match(self, match: Callable[..., list[Matches]], calls: Sequence[Call]) -> list[Matches]:
        """Match; turn an error into a NaN loss.

        An exception here would leave other processes waiting for this one's gradient.
        """
        try:
            return match(calls)
        except ValueError as error:
            tensors = [x for c in calls for x in (c.cls_scores, c.boxes, c.targets.boxes)]
            if all(bool(x.isfinite().all()) for x in tensors):  # another cause, such as a label
                if get_world_size() == 1:
                    raise
                self._update.fatal = True
            self._update.failure = self._update.failure or error
            nothing = torch.zeros(0, dtype=torch.long, device=calls[0].boxes.device)
            return [Matches(nothing, nothing)] * len(calls)

    def _note_losses(self, model: nn.Module, inputs: Any, output: Any) -> Any:
        if not (model.training and isinstance(output, dict)):
            return None
        losses = {k: value.detach() for k, value in output.items() if isinstance(value, Tensor)}
        self._update.losses.append(losses)
        if self._update.failure is None:
            return None
        return {name: value * math.nan for name, value in output.items()}

    def _watch(self, runner: Runner, wrapper: OptimWrapper) -> None:
        optimizer = wrapper.optimizer
        clips = bool(wrapper.clip_grad_kwargs) and wrapper.grad_name == "grad_norm"
        if clips:
            clip = functools.partial(self._clip, runner, wrapper, wrapper.clip_func)
            self._changes.set(wrapper, "clip_func", clip)
        step = optimizer.step

        @functools.wraps(step)
        def checked_step(*args: Any, **kwargs: Any) -> Any:
            if self._update.settled:
                return None  # a loss of this update was not finite
            if not clips and not _scales(wrapper):
                parameters = [p for group in optimizer.param_groups for p in group["params"]]
                self._norm(runner, wrapper, parameters)
            overflow = getattr(optimizer, "found_inf", None)  # a fused optimizer skips it
            if self._update.bad_gradient and (overflow is None or not overflow):
                return self._stop_or_skip(runner, alone=False)
            return step(*args, **kwargs)

        self._changes.set(optimizer, "step", checked_step)

    def _clip(
        self, runner: Runner, wrapper: OptimWrapper, clip: Callable, parameters: Any, **options: Any
    ) -> Any:
        """Clip finite gradients; with NaN, clipping would make every gradient NaN."""
        norm, value = self._norm(runner, wrapper, parameters, options.get("norm_type", 2.0))
        if not math.isfinite(value):
            return value
        if isinstance(runner.model, FullyShardedDataParallel):
            return clip(parameters, **options)
        if clip is nn.utils.clip_grad_norm_ and hasattr(nn.utils, "clip_grads_with_norm_"):
            # torch >= 2.6 can use the known norm
            foreach = options.get("foreach")
            nn.utils.clip_grads_with_norm_(parameters, options["max_norm"], norm, foreach)
        else:
            clip(parameters, **options)
        return value  # a number on the host, so mmengine does not synchronise

    def _norm(
        self, runner: Runner, wrapper: OptimWrapper, parameters: Any, norm_type: float = 2.0
    ) -> tuple[Tensor, float]:
        """Compute the gradient's norm, on device and host; record if it is not finite."""
        norm = _total_norm(parameters, norm_type)
        if isinstance(runner.model, FullyShardedDataParallel):
            all_reduce(norm)  # each process has a shard, and all must decide alike
        value = float(norm)
        if not math.isfinite(value):
            self._update.bad_gradient = True
            # after an overflow the scaler lowers its scale
            scaler = wrapper.loss_scaler if _scales(wrapper) else None
            lower = scaler and scaler.get_scale() * scaler.get_backoff_factor()
            if lower is None or lower < self.min_loss_scale:
                self._update.parameters = _name_bad_gradients(unwrap(runner.model))
        return norm, value

    # ----------------------------------------------------------------------------------------------
    # After a non-finite loss or gradient

    def _restore_statistics(self) -> None:
        for module, buffer, copy in self._statistics:
            if module.training:
                buffer.copy_(copy)

    def _stop_or_skip(self, runner: Runner, alone: bool) -> None:
        """Skip the update, or raise; ``alone``: other processes do not know of the problem."""
        self._restore_statistics()
        update = self._update
        if update.settled:
            return  # already reported for this update
        update.settled = True
        all_stop = self._skipped >= self.max_skips
        stops = all_stop or update.fatal
        message = _describe(update, f"iteration {runner.iter + 1} (epoch {runner.epoch + 1})")
        message += self._save(runner, message, with_weights=stops and (alone or get_rank() == 0))
        if stops:
            if all_stop and not alone:
                barrier()  # the launcher would kill the others while they write
            raise (UserError if update.fatal else NotFiniteError)(message) from update.failure
        self._skipped += 1
        runner.logger.warning(
            f"{message} The step is skipped ({self._skipped} of at most {self.max_skips})."
        )

    def _save(self, runner: Runner, message: str, with_weights: bool) -> str:
        """Write the bundle; return a sentence with its path."""
        rank = f"_rank{get_rank()}" if get_world_size() > 1 else ""
        path = Path(runner.work_dir) / "debug" / f"iter_{runner.iter + 1}{rank}.pth"
        content = dict(
            problem=message,
            iteration=runner.iter + 1,
            epoch=runner.epoch + 1,
            rank=get_rank(),
            losses=self._update.losses,
            parameters=self._update.parameters,
            batches=self._update.batches,
            config=runner.cfg.pretty_text,
        )
        if with_weights and not isinstance(runner.model, FullyShardedDataParallel):
            content["state_dict"] = unwrap(runner.model).state_dict()
        try:
            save_plain_data(path, content)
        except OSError as error:
            return f" The batch could not be saved: {error}."
        weights = ", the weights before it" if "state_dict" in content else ""
        return f" The batch{weights} and the config are in {path}."


def _scales(wrapper: OptimWrapper) -> bool:
    """Whether a loss scaler is used, which skips steps with overflows."""
    scaler = getattr(wrapper, "loss_scaler", None)
    return scaler is not None and scaler.is_enabled()


def _forget_last(logged: Sequence[HistoryBuffer]) -> None:
    """Remove a skipped step's NaN from the log, where it would make a window's means NaN."""
    for values in logged:
        history, counts = values.data
        if len(history) > 1 and not math.isfinite(history[-1]):
            values._log_history, values._count_history = history[:-1], counts[:-1]


def _total_norm(parameters: Sequence[Tensor], norm_type: float) -> Tensor:
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros((), device=parameters[0].device if parameters else None)
    if hasattr(torch.nn.utils, "get_total_norm"):  # torch >= 2.6
        return torch.nn.utils.get_total_norm(gradients, norm_type)
    norms = [torch.linalg.vector_norm(gradient, norm_type) for gradient in gradients]
    return torch.linalg.vector_norm(torch.stack(norms), norm_type)


def _name_bad_gradients(model: nn.Module, most: int = 5) -> list[str]:
    """Describe the first parameters with non-finite gradients, and count their values."""
    found = []
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        if gradient is not None and not bool(gradient.isfinite().all()):
            nans, infinite = int(gradient.isnan().sum()), int(gradient.isinf().sum())
            found.append(f"{name} ({nans} NaN and {infinite} infinite of {gradient.numel()})")
    if len(found) > most:
        found[most:] = [f"and {len(found) - most} more parameters"]
    return found


def _describe(update: _Update, where: str) -> str:
    """Describe a problem in an iteration."""
    terms = [
        f"{_name_term(name, losses)} is {float(value.mean())}"
        for losses in update.losses
        for name, value in losses.items()
        if not bool(value.isfinite().all())
    ]
    if update.failure is not None:
        what = f"{update.failure} This was {where}."
    elif terms:
        what = f"The loss is not finite in {where}: {', '.join(terms)}."
    else:
        what = f"The gradient is not finite in {where}, although this process's loss is finite: "
        what += ", ".join(update.parameters) or "its norm overflows float32"
        if update.loss_scale is not None:
            what += f"; a loss scale of {update.loss_scale:g} does not help"
        what += "."
        if get_world_size() > 1:  # gradients are averaged over all processes
            what += " Another process's images may be the cause."
    if update.failure is None:
        what += (
            " Lower the learning rate or clip gradients (optim_wrapper.clip_grad), and check the "
            "images; to skip up to N such steps give NumbersCheckHook max_skips=N."
        )
    images, bad = [], []
    for batch in (batch for batch in update.batches if isinstance(batch, dict)):
        pixels = batch.get("inputs", ())
        for n, sample in enumerate(batch.get("data_samples") or ()):
            images.append(f"({name_image(sample.metainfo)})")
            if n < len(pixels) and not bool(pixels[n].isfinite().all()):
                bad.append(images[-1])
    if bad:  # batch norms spread NaN over the batch, so another image may be named above
        what += f" Images with non-finite pixels: {', '.join(bad)}."
    return f"{what} Images of the step: {', '.join(images) or 'unknown'}."


def _name_term(name: str, losses: dict[str, Tensor]) -> str:
    layer = re.fullmatch(r"d(\d+)\.(\w+)", name)
    if layer:
        return f"{layer[2]} of decoder layer {layer[1]}"
    if name.startswith("enc_loss"):
        return f"{name.removeprefix('enc_')} of the encoder proposals"
    return f"{name} of the last decoder layer" if f"d0.{name}" in losses else name
