"""Make a resumed training equal to an uninterrupted one."""

from __future__ import annotations

from typing import Any

from mmdet.registry import HOOKS
from mmengine.dataset import InfiniteSampler
from mmengine.dist import broadcast_object_list
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner

from .changes import Changes, run_within, unwrap
from .data_order import (
    EndlessBatches,
    NumberedBatches,
    can_take_over,
    inner_sampler,
    seed_generators,
    take_over,
)

KEY = "exact_resume"  # in the checkpoint
# Purpose of a seed: the number after the run's seed and the rank.
_DATA, _EPOCH, _ITERATION = range(3)


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Resumes with the batches and random numbers of an uninterrupted training.

    mmengine stores weights, optimizer, loss scaler, schedulers and log. This hook adds:

    - Random numbers in the training process: every epoch and iteration seeds all generators from
      the run's seed and its own number.
    - Random numbers of the augmentation: every image seeds the generators from the run's seed and
      its position in training; the number of workers does not matter.
    - The order of the images: the sampler gets its former seed, even if the config has none.
    - The position: training continues with the next batch, also within an epoch, and does not load
      the images of earlier batches.
    - Accumulated gradients of an optimizer with accumulative_counts (single process only).

    Transforms with their own random generators are not covered.
    """

    # Before all hooks that may draw random numbers or read the data loader.
    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}
        self._batches: NumberedBatches | None = None
        self._endless: EndlessBatches | None = None
        self._seed = (0, 0)  # the run's seed and the rank
        self._sampler_seed: int | None = None
        self._position = (0, 0)  # passes through the data, batches of the current one
        self._changes = Changes()

    def before_run(self, runner: Runner) -> None:
        """Restore the loop and its data loader at the end, even if training fails."""
        run_within(runner, self._changes)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember the position; only before_train knows whether training resumes."""
        self._loaded = checkpoint.get(KEY) or {}

    def before_train(self, runner: Runner) -> None:
        """Move the data loader to the checkpoint's position."""
        loop = runner.train_loop
        loaded = self._loaded if runner.iter > 0 else {}  # load_from starts at 0
        # Rank 0's for all: with diff_rank_seed they differ.
        seeds = [loaded.get("seed", runner.seed)]
        broadcast_object_list(seeds)
        self._seed = (seeds[0], runner.rank)
        if not can_take_over(loop.dataloader):
            runner.logger.warning(
                "train_dataloader has no batch sampler, so a resumed training will see other data "
                "than an uninterrupted one."
            )
            return
        sampler = inner_sampler(loop.dataloader.batch_sampler)
        self._sampler_seed = loaded.get("sampler_seed", getattr(sampler, "seed", runner.seed))
        loader = vars(loop.dataloader)
        self._changes.callback(loader.update, dict(loader, _iterator=None))
        config, seed = runner.cfg.get("train_dataloader"), (*self._seed, _DATA)
        self._batches = take_over(loop.dataloader, config, seed, self._sampler_seed)
        self._position = self._resumed_position(runner, loaded)
        self._batches.passes, self._batches.skip = self._position
        if isinstance(loop, EpochBasedTrainLoop):  # for logs and ETA
            loop._iter = self._position[0] * len(loop.dataloader) + self._position[1]
        if hasattr(loop, "dataloader_iterator"):
            can_skip = hasattr(type(loop.dataloader_iterator), "skip_iter")
            discard = 0 if can_skip else loop.iter
            self._endless = EndlessBatches(loop.dataloader, self._batches, discard)
            self._changes.set(loop, "dataloader_iterator", self._endless)
        elif self._batches.skip:
            # The loop numbers the batches that it gets, for hooks such as the logger.
            run_iter, skipped = loop.run_iter, self._batches.skip
            run_later = lambda idx, data_batch: run_iter(idx + skipped, data_batch)  # noqa: E731
            self._changes.set(loop, "run_iter", run_later)
        parameters = dict(unwrap(runner.model).named_parameters())
        for name, gradient in loaded.get("gradients", {}).items():
            parameters[name].grad = gradient.to(parameters[name].device)

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed random numbers before the first iteration, and number the pass."""
        seed_generators(*self._seed, _EPOCH, runner.epoch, 0, 0)
        if self._batches is not None and self._endless is None:
            self._batches.passes = runner.epoch

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed the iteration's random numbers, such as dropout's."""
        seed_generators(*self._seed, _ITERATION, runner.iter, 0, 0)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Count the batch, before the checkpoint hook saves."""
        if self._endless is not None:
            self._position = self._endless.position
        else:
            self._position = (runner.epoch, batch_idx + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Count the pass."""
        if self._endless is None:
            self._position = (runner.epoch + 1, 0)
            vars(runner.train_loop).pop("run_iter", None)  # restores the class's method

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the position as plain numbers, which load everywhere."""
        if self._batches is None:
            return
        passes, batches = self._position
        checkpoint[KEY] = dict(
            passes=passes,
            batches=batches,
            **self._settings(runner),
            seed=self._seed[0],
            sampler_seed=self._sampler_seed,
        )
        optimizer = runner.optim_wrapper
        if isinstance(optimizer, OptimWrapper) and not optimizer.should_update():
            gradients = {
                name: parameter.grad.cpu()
                for name, parameter in unwrap(runner.model).named_parameters()
                if parameter.grad is not None
            }
            if all(bool(gradient.isfinite().all()) for gradient in gradients.values()):
                checkpoint[KEY]["gradients"] = gradients
            else:
                runner.logger.warning(
                    "The accumulated gradients are not finite. They are left out of the "
                    "checkpoint, so that training can resume from it."
                )

    def _settings(self, runner: Runner) -> dict[str, int]:
        """The settings on which the position depends."""
        return dict(
            batch_size=self._batches.batch_size,  # type: ignore[union-attr]
            world_size=runner.world_size,
            images=len(runner.train_dataloader.dataset),
        )

    def _resumed_position(self, runner: Runner, loaded: dict[str, Any]) -> tuple[int, int]:
        loop, length = runner.train_loop, len(runner.train_dataloader)
        if not loaded:  # a new training, or a checkpoint without this hook
            if isinstance(loop, EpochBasedTrainLoop):
                done = loop.iter - loop.epoch * length
                # outside the epoch: the batch size has changed
                return loop.epoch, done if 0 <= done < length else 0
            sampler = inner_sampler(runner.train_dataloader.batch_sampler)
            infinite = isinstance(sampler, InfiniteSampler)
            return (0, loop.iter) if infinite else divmod(loop.iter, length)
        present = self._settings(runner)
        changed = [
            f"{name} was {loaded[name]} and is {value}"
            for name, value in present.items()
            if loaded[name] != value
        ]
        if not changed:
            return loaded["passes"], loaded["batches"]
        runner.logger.warning(
            f"The checkpoint has other settings ({', '.join(changed)}). Training resumes at the "
            "same share of the epoch, but not exactly like an uninterrupted run."
        )
        seen = loaded["batches"] * loaded["batch_size"] * loaded["world_size"]
        share = present["batch_size"] * present["world_size"]
        return loaded["passes"], round(seen / share)
