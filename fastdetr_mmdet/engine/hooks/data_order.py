"""Continue a training data loader at a given batch, with the same augmentation.

`take_over` changes a data loader in place: its batches are numbered, leading ones can be skipped
without loading their images, and each image is augmented with random numbers that follow from the
seed and the number of its batch alone. So it matters neither how often training was interrupted nor
how many worker processes there are.

Storing the generators' states would not do: the worker processes have states of their own, which
nobody can read, they run ahead of training, and a validation that one run makes and the resumed run
does not draws from the main process's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.registry import DATA_SAMPLERS
from torch.utils.data import BatchSampler, DataLoader

# ruff: noqa: NPY002 (the global state of numpy is what mmdet's transforms draw from)


def seed_generators(*position: int) -> None:
    """Seed the global generators of python, numpy and torch, those of GPUs included."""
    torch.manual_seed(_seed_python_and_numpy(position))


def seed_cpu_generators(*position: int) -> None:
    """Seed those of the CPU alone, in microseconds: for every image, where data is loaded."""
    torch.default_generator.manual_seed(_seed_python_and_numpy(position))


def _seed_python_and_numpy(position: tuple[int, ...]) -> int:
    """Seed these two, and return the seed for torch; all three are as good as independent."""
    for_python, for_numpy, for_torch = np.random.SeedSequence(position).generate_state(3).tolist()
    random.seed(for_python)
    np.random.seed(for_numpy)
    return for_torch


class Draw(NamedTuple):
    """Which image, and where in training it is drawn."""

    image: int
    passes: int  # how often the data had been gone through before
    batch: int  # number of the batch in this pass
    place: int  # in the batch


class NumberedBatches:
    """Batch sampler that turns the indices of another one into `Draw`s.

    Args:
        batch_sampler: Gives lists of indices.

    Attributes:
        passes: Number of the pass that the next iterator goes through.
        skip: How many batches the next iterator leaves out; those after it start from the first.
    """

    def __init__(self, batch_sampler: Any) -> None:
        self.batch_sampler = batch_sampler
        self.passes = 0
        self.skip = 0

    def __iter__(self) -> Iterator[list[Draw]]:
        # As this is a generator, `skip` is used up by the first iterator that somebody draws from:
        # a data loader with workers makes one that it throws away.
        passes, skip = self.passes, self.skip
        self.skip = 0
        for number, batch in enumerate(self.batch_sampler):
            if number >= skip:
                yield [Draw(image, passes, number, place) for place, image in enumerate(batch)]

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __getattr__(self, name: str) -> Any:
        """Attributes of the wrapped one: mmengine reads `sampler`, `batch_size` and `drop_last`."""
        if name == "batch_sampler" or name.startswith("__"):  # not there yet, while unpickled
            raise AttributeError(name)
        return getattr(self.batch_sampler, name)


class SeededDataset:
    """Data set whose random numbers follow from the `Draw`; in all else the one that it wraps.

    Args:
        dataset: The wrapped one.
        seed: Of the run, and the number of this process among all that train: a tuple.
    """

    def __init__(self, dataset: Any, seed: tuple[int, ...]) -> None:
        vars(self).update(_wrapped=dataset, _seed=seed)

    def __getitem__(self, draw: Draw | int) -> Any:
        if not isinstance(draw, Draw):
            return self._wrapped[draw]
        seed_cpu_generators(*self._seed, *draw[1:])
        return self._wrapped[draw.image]

    # torch would pass whole batches to it, if the wrapped one has it
    __getitems__ = None

    def __len__(self) -> int:
        return len(self._wrapped)

    def __getattr__(self, name: str) -> Any:
        if name in ("_wrapped", "_seed") or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._wrapped, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._wrapped, name, value)  # mmdet's PipelineSwitchHook sets the pipeline


class EndlessBatches:
    """What an iteration-based loop draws from: pass after pass, each in the order of its number.

    Args:
        loader: Taken over.
        batches: Its batch sampler.
        discard: How many calls of next() give None. An mmengine that cannot skip calls it once for
            every batch that was trained on before, and these are left out already.
    """

    def __init__(self, loader: DataLoader, batches: NumberedBatches, discard: int) -> None:
        self.loader = loader
        self.batches = batches
        self.discard = discard
        self.position = (batches.passes, batches.skip)
        self._iterator: Any = None

    def __iter__(self) -> EndlessBatches:
        return self

    def __next__(self) -> Any:
        if self.discard:
            self.discard -= 1
            return None
        if self._iterator is None:
            self._start(self.batches.passes)
        try:
            data = next(self._iterator)
        except StopIteration:
            self._start(self.batches.passes + 1)
            data = next(self._iterator)
        self.position = (self.position[0], self.position[1] + 1)
        return data

    def skip_iter(self, num_iters: int) -> None:
        """Called by mmengine versions that can skip batches; does nothing."""

    def _start(self, passes: int) -> None:
        self.batches.passes = passes
        self.position = (passes, self.batches.skip)
        sampler = inner_sampler(self.batches.batch_sampler)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(passes)
        self._iterator = iter(self.loader)


def inner_sampler(batch_sampler: Any) -> Any:
    """The sampler of single indices below a batch sampler, or None."""
    return getattr(batch_sampler, "sampler", None)


def take_over(
    loader: DataLoader, config: Any, seed: tuple[int, ...], sampler_seed: int | None
) -> NumberedBatches:
    """Change a data loader in place, as told above.

    Args:
        loader: Any that makes batches from a data set with indices.
        config: What it was built from, or None if that is not known. The samplers are built from it
            again, because an iterator that a loop made already may have drawn from them.
        seed: For the augmentation.
        sampler_seed: For the order, or None to leave that to the sampler.

    Returns:
        Its new batch sampler, which also tells and sets the position.
    """
    dataset = loader.dataset
    batch_sampler: Any = loader.batch_sampler
    changes: dict[str, Any] = {}
    config = config or {}
    plain = type(batch_sampler) is BatchSampler
    if isinstance(config.get("sampler"), dict) and (
        plain or isinstance(config.get("batch_sampler"), dict)
    ):
        arguments = dict(dataset=dataset, seed=sampler_seed)
        sampler = DATA_SAMPLERS.build(config["sampler"], default_args=arguments)
        if plain:
            batch_sampler = BatchSampler(sampler, batch_sampler.batch_size, batch_sampler.drop_last)
            changes["sampler"] = sampler  # the loader holds it beside the batch sampler
        else:
            arguments = dict(sampler=sampler, batch_size=batch_sampler.batch_size)
            batch_sampler = DATA_SAMPLERS.build(config["batch_sampler"], default_args=arguments)
    elif sampler_seed is not None and hasattr(inner_sampler(batch_sampler), "seed"):
        inner_sampler(batch_sampler).seed = sampler_seed

    batches = NumberedBatches(batch_sampler)
    changes.update(dataset=SeededDataset(dataset, seed), batch_sampler=batches)
    # DataLoader forbids to set these, since an iterator of it would not notice. There is none: the
    # next one is new, and persistent workers with it.
    vars(loader).update(changes, _iterator=None)
    return batches


def can_take_over(loader: Any) -> bool:
    """Whether a data loader makes batches from a data set with indices."""
    return (
        isinstance(loader, DataLoader)
        and loader.batch_sampler is not None
        and not isinstance(loader.dataset, torch.utils.data.IterableDataset)
    )
