"""Stops a training whose loss or gradient is not finite, before the weights are spoiled."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce, barrier, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.modules.batchnorm import _BatchNorm

from ...models.heads import FastDETRHead
from ...models.matchers import Matches
from ...structures.targets import Targets
from .debug_bundle import write_bundle
from .numbers_report import Update, describe, name_bad_gradients

KEY = "numbers_check"  # in the checkpoint


class NotFiniteError(ValueError):
    """A loss or gradient that is NaN or infinite."""


@HOOKS.register_module()
class NumbersCheckHook(Hook):
    """Finds a loss or gradient that is NaN or infinite; tells the images, the term and the layer.

    The weights, and the running statistics of batch norms, are then those before the step, no
    checkpoint is written, and ``work_dir/debug/iter_<n>.pth`` holds the batch, the weights and the
    config (of several processes each writes its batch, the first one the weights too). All
    processes stop at the same step, because all of them see the sum of the gradients. Where
    gradients are accumulated they tell one another of a loss right after its batch.

    It costs no wait for the device: the norm of the gradient is on the host already, for
    ``clip_grad``, the losses are, for the log, and the matcher looks at the outputs. Only without
    ``clip_grad`` by norm it waits once per step, before the weights are changed.

    With a loss scaler (fp16) gradients overflow now and then, which is how it finds its scale. It
    leaves out those steps itself, and they are no error as long as the loss is finite and the scale
    does not fall below ``min_loss_scale``.

    Args:
        max_skips: How many such steps to leave out with a warning, before one stops the training;
            those before a checkpoint from which training resumes count. A step is an update: of
            gradients that are accumulated, none of its batches count.
        min_loss_scale: The smallest scale at which an overflow is still a matter of the scale.

    Raises:
        NotFiniteError: from the training step.
    """

    # after the hook that notes the losses (VERY_HIGH), before those that log and save
    priority = "ABOVE_NORMAL"

    def __init__(self, max_skips: int = 0, min_loss_scale: float = 2.0**-10) -> None:
        if max_skips < 0:
            raise ValueError(f"NumbersCheckHook: max_skips={max_skips} must not be negative.")
        self.max_skips = max_skips
        self.min_loss_scale = min_loss_scale
        self._skipped = 0
        self._loaded: dict[str, Any] | None = None
        self._update = Update()
        # of batch norms, and a copy
        self._statistics: list[tuple[nn.Module, Tensor, Tensor]] = []
        self._undo: list[Callable[[], Any]] = []

    # ----------------------------------------------------------------------------------------------
    # What mmengine calls

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember what was skipped; only before_train can tell if training resumes."""
        self._loaded = checkpoint.get(KEY)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add how many steps have been left out, and whether the one under way will be."""
        if self._skipped:
            checkpoint[KEY] = dict(skipped=self._skipped, settled=self._update.settled)

    def before_train(self, runner: Runner) -> None:
        """Begin to watch the model and the optimizer."""
        if self._loaded and runner.iter > 0:  # load_from starts at 0
            self._skipped, self._update.settled = self._loaded["skipped"], self._loaded["settled"]
        model = _unwrap(runner.model)
        self._undo.append(model.register_forward_hook(self._note_losses).remove)
        head = getattr(model, "bbox_head", None)
        if isinstance(head, FastDETRHead):
            self._replace(head, "_match", functools.partial(self._match, head._match))
        for wrapper in _optim_wrappers(runner):
            self._watch(runner, wrapper)
        self._statistics = [
            (module, buffer, buffer.clone())
            for module in model.modules()
            if isinstance(module, _BatchNorm) and module.track_running_stats
            for buffer in (module.running_mean, module.running_var)
            if buffer is not None
        ]

    def after_train(self, runner: Runner) -> None:
        """Leave model and optimizer as they were found."""
        while self._undo:
            self._undo.pop()()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep the batch, and the statistics that it will change."""
        self._update.batches.append(data_batch)
        for module, buffer, copy in self._statistics:
            if module.training:  # most backbones' do not
                copy.copy_(buffer, non_blocking=True)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Look at the losses, which the log has brought to the host, and at the loss scale."""
        update, wrappers = self._update, _optim_wrappers(runner)
        scalars = runner.message_hub.log_scalars
        logged = [scalars[key] for name in outputs or () if (key := f"train/{name}") in scalars]
        bad_loss = not all(math.isfinite(values.current()) for values in logged)
        if not all(wrapper.should_update() for wrapper in wrappers):  # gradients are accumulated
            if _in_any_process(runner, bad_loss):
                # Now and not with the update, because a checkpoint may come in between.
                update.bad_loss_anywhere = True
                self._stop_or_skip(runner, alone=False)
                for wrapper in wrappers:
                    wrapper.zero_grad()
                _forget_last(logged)
            return
        if bad_loss:
            self._stop_or_skip(runner, alone=True)
        elif not update.settled and (update.bad_gradient or self.every_n_train_iters(runner, 50)):
            scales = [w.loss_scaler.get_scale() for w in wrappers if _scales(w)]
            if scales and min(scales) < self.min_loss_scale:
                update.loss_scale = min(scales)
                self._stop_or_skip(runner, alone=False)
        if update.settled:
            norm = scalars.get("train/grad_norm")
            _forget_last([*logged, norm] if norm is not None else logged)
        self._update = Update()

    # ----------------------------------------------------------------------------------------------
    # What the step calls instead

    def _match(self, match: Callable[..., list[Matches]], calls: list[tuple]) -> list[Matches]:
        """Match; what cannot be matched for its numbers makes the whole step's loss NaN.

        If it were an error here, the other processes would wait for this one's gradient.
        """
        try:
            return match(calls)
        except ValueError as error:
            tensors = [x for cls, boxes, targets, _ in calls for x in (cls, boxes, targets.boxes)]
            if all(bool(x.isfinite().all()) for x in tensors):
                raise  # something else is wrong
            self._update.failure = self._update.failure or error
            return [_any_matches(cls_scores, targets) for cls_scores, _, targets, _ in calls]

    def _note_losses(self, model: nn.Module, inputs: Any, output: Any) -> Any:
        if not (model.training and isinstance(output, dict)):
            return None
        losses = {
            name: value.detach() for name, value in output.items() if isinstance(value, Tensor)
        }
        self._update.losses.append(losses)
        if self._update.failure is None:
            return None
        return {name: value * math.nan for name, value in output.items()}

    def _watch(self, runner: Runner, wrapper: OptimWrapper) -> None:
        optimizer = wrapper.optimizer
        sharded = isinstance(runner.model, FullyShardedDataParallel)
        clips = bool(wrapper.clip_grad_kwargs) and wrapper.grad_name == "grad_norm"

        def check(parameters: Sequence[Tensor], norm_type: float = 2.0) -> float:
            norm = _total_norm(parameters, norm_type)
            if sharded:  # each process has a share, and all must come to the same conclusion
                all_reduce(norm)
            value = float(norm)
            if not math.isfinite(value):
                self._update.bad_gradient = True
                if not _scales(wrapper) or self._is_scale_too_small(wrapper.loss_scaler):
                    self._update.parameters = name_bad_gradients(_unwrap(runner.model))
            return value

        if clips:
            clip = wrapper.clip_func

            def checked_clip(parameters: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
                norm_type = kwargs.get("norm_type", 2.0)
                norm = check(parameters, norm_type)
                if not math.isfinite(norm):
                    return norm  # clipping would make every gradient NaN
                clipped = clip(parameters, *args, **kwargs)
                return clipped if sharded else norm  # a number, for which mmengine need not wait

            self._replace(wrapper, "clip_func", checked_clip)

        step = optimizer.step

        @functools.wraps(step)
        def checked_step(*args: Any, **kwargs: Any) -> Any:
            if self._update.settled:
                return None  # a loss that went into it was not finite
            if not clips and not _scales(wrapper):
                check([p for p in _parameters(optimizer) if p.grad is not None])
            overflow = getattr(optimizer, "found_inf", None)  # a fused optimizer sees to it
            if self._update.bad_gradient and (overflow is None or not overflow):
                return self._stop_or_skip(runner, alone=False)
            return step(*args, **kwargs)

        self._replace(optimizer, "step", checked_step)

    def _is_scale_too_small(self, scaler: Any) -> bool:
        """Whether it will be after this overflow."""
        return scaler.get_scale() * scaler.get_backoff_factor() < self.min_loss_scale

    def _replace(self, owner: Any, name: str, function: Callable) -> None:
        own = vars(owner).get(name)
        setattr(owner, name, function)
        if own is None:
            self._undo.append(functools.partial(delattr, owner, name))
        else:
            self._undo.append(functools.partial(setattr, owner, name, own))

    # ----------------------------------------------------------------------------------------------
    # When it has happened

    def _stop_or_skip(self, runner: Runner, alone: bool) -> None:
        """Leave the step out, or raise; ``alone`` if the other processes do not know of it."""
        for module, buffer, copy in self._statistics:
            if module.training:
                buffer.copy_(copy)
        if self._update.settled:
            return  # told already, of this batch or of another one of the update
        self._update.settled = True
        stops = self._skipped >= self.max_skips
        where = f"iteration {runner.iter + 1} (epoch {runner.epoch + 1})"
        message = describe(self._update, where, get_world_size())
        message += self._save(runner, message, with_weights=stops and (alone or get_rank() == 0))
        if stops:
            if not alone:
                barrier()  # the launcher ends the others when one has failed, their files half done
            raise NotFiniteError(message) from self._update.failure
        self._skipped += 1
        runner.logger.warning(
            f"{message} The step is left out ({self._skipped} of at most {self.max_skips})."
        )

    def _save(self, runner: Runner, message: str, with_weights: bool) -> str:
        """Write the bundle; return the sentence that says where it is."""
        name = f"iter_{runner.iter + 1}"
        if get_world_size() > 1:
            name += f"_rank{get_rank()}"
        path = Path(runner.work_dir) / "debug" / f"{name}.pth"
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
            content["state_dict"] = _unwrap(runner.model).state_dict()
        try:
            write_bundle(path, content)
        except OSError as error:
            return f" The batch could not be saved: {error}."
        what = "The batch, the weights before it and the config"
        return f" {what if 'state_dict' in content else 'The batch and the config'} are in {path}."


def _unwrap(model: Any) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def _optim_wrappers(runner: Runner) -> list[OptimWrapper]:
    """All that update as mmengine's own does; DeepSpeed and ColossalAI look after themselves."""
    wrapper = runner.optim_wrapper
    wrappers = (
        wrapper.optim_wrappers.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    )
    return [wrapper for wrapper in wrappers if isinstance(wrapper, OptimWrapper)]


def _scales(wrapper: OptimWrapper) -> bool:
    """Whether a loss scaler is at work, which leaves out steps whose gradient overflows."""
    scaler = getattr(wrapper, "loss_scaler", None)
    return scaler is not None and bool(getattr(scaler, "is_enabled", lambda: True)())


def _in_any_process(runner: Runner, bad: bool) -> bool:
    """Whether it is so in one of them; between updates they do not see each other's gradients."""
    if get_world_size() == 1:
        return bad
    flag = torch.tensor(float(bad), device=next(runner.model.parameters()).device)
    all_reduce(flag)
    return bool(flag)


def _forget_last(logged: Sequence[HistoryBuffer]) -> None:
    """Take a left-out step's NaN out of the log, whose means would be NaN for a whole window."""
    for values in logged:
        history, counts = values.data
        if len(history) > 1 and not math.isfinite(history[-1]):
            values._log_history, values._count_history = history[:-1], counts[:-1]


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _total_norm(parameters: Sequence[Tensor], norm_type: float) -> Tensor:
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros((), device=parameters[0].device if parameters else None)
    if hasattr(torch.nn.utils, "get_total_norm"):  # torch >= 2.6
        return torch.nn.utils.get_total_norm(gradients, norm_type)
    norms = [torch.linalg.vector_norm(gradient, norm_type) for gradient in gradients]
    return torch.linalg.vector_norm(torch.stack(norms), norm_type)


def _any_matches(cls_scores: Tensor, targets: Targets) -> Matches:
    """As many pairs as there should be, of whichever query and object come first."""
    num_layers, bs, num_queries, _ = cls_scores.shape
    counts = [min(num_queries, count) for count in targets.counts]
    starts = [sum(targets.counts[:image]) for image in range(bs)]
    queries: list[int] = []
    objects: list[int] = []
    for layer in range(num_layers):
        for image, (start, count) in enumerate(zip(starts, counts, strict=True)):
            first = (layer * bs + image) * num_queries
            queries.extend(range(first, first + count))
            objects.extend(range(start, start + count))
    device = cls_scores.device
    return Matches(
        torch.tensor(queries, dtype=torch.long, device=device),
        torch.tensor(objects, dtype=torch.long, device=device),
    )
