"""Continue a data loader at a given batch, with the same augmentation.

`take_over` changes a data loader in place: batches are numbered, leading batches can be skipped
without loading their images, and the random numbers of each image's augmentation depend only on the
seed and the number of its batch. Neither interruptions nor the number of workers change them.

Storing the generators' states would not be enough. Worker processes have their own states, which
cannot be read, and run ahead of training; and a validation that the resumed run does not repeat has
drawn from the main process's generators.
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


def seed_generators(*position: int, cpu_only: bool = False) -> None:
    """Seed the global generators of python, numpy and torch, independently of each other.

    Args:
        position: Numbers that the seeds follow from.
        cpu_only: Leave out GPUs' generators, which takes microseconds; for every image.
    """
    for_python, for_numpy, for_torch = np.random.SeedSequence(position).generate_state(3).tolist()
    random.seed(for_python)
    np.random.seed(for_numpy)
    (torch.default_generator if cpu_only else torch).manual_seed(for_torch)


class Draw(NamedTuple):
    """Index of an image, and the position in training where it is drawn."""

    image: int
    passes: int  # completed passes through the data
    batch: int  # number of the batch in this pass
    place: int  # index in the batch


class NumberedBatches:
    """Batch sampler that turns the indices of another one into `Draw`s.

    Args:
        batch_sampler: Gives lists of indices.

    Attributes:
        passes: Number of the next iterator's pass.
        skip: Number of batches that the next iterator skips; later iterators skip none.
    """

    def __init__(self, batch_sampler: Any) -> None:
        self.batch_sampler = batch_sampler
        self.passes = 0
        self.skip = 0

    def __iter__(self) -> Iterator[list[Draw]]:
        # This is a generator, so `skip` is used by the first iterator that is drawn from; a data
        # loader with workers makes one that it throws away.
        passes, skip = self.passes, self.skip
        self.skip = 0
        for number, batch in enumerate(self.batch_sampler):
            if number >= skip:
                yield [Draw(image, passes, number, place) for place, image in enumerate(batch)]

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __getattr__(self, name: str) -> Any:
        """Get the wrapped sampler's attributes, such as `sampler`, `batch_size`, `drop_last`."""
        if name == "batch_sampler" or name.startswith("__"):  # not set yet while unpickling
            raise AttributeError(name)
        return getattr(self.batch_sampler, name)


class SeededDataset:
    """Wrapper of a dataset whose random numbers depend on the `Draw`.

    Args:
        dataset: The wrapped one.
        seed: Tuple of the run's seed and the rank.
    """

    def __init__(self, dataset: Any, seed: tuple[int, ...]) -> None:
        vars(self).update(_wrapped=dataset, _seed=seed)

    def __getitem__(self, draw: Draw | int) -> Any:
        if not isinstance(draw, Draw):
            return self._wrapped[draw]
        seed_generators(*self._seed, *draw[1:], cpu_only=True)
        return self._wrapped[draw.image]

    # or torch would pass whole batches to the wrapped dataset's
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
    """Endless batches for iteration-based loops: pass after pass, each with its own order.

    Args:
        loader: Data loader after `take_over`.
        batches: Its batch sampler.
        discard: Number of calls of next() that return None. An mmengine that cannot skip calls
            next() for every batch that was trained on before, but those are skipped already.
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
    """Change a data loader in place; see the module's docstring.

    Args:
        loader: Data loader with a batch sampler and a map-style dataset.
        config: Its config, or None if unknown. Samplers are rebuilt from it, because an earlier
            iterator may have drawn from them.
        seed: For the augmentation.
        sampler_seed: Seed of the order; None keeps the sampler's.

    Returns:
        The new batch sampler, which holds the position.
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
            changes["sampler"] = sampler  # the loader keeps its own reference
        else:
            arguments = dict(sampler=sampler, batch_size=batch_sampler.batch_size)
            batch_sampler = DATA_SAMPLERS.build(config["batch_sampler"], default_args=arguments)
    elif sampler_seed is not None and hasattr(inner_sampler(batch_sampler), "seed"):
        inner_sampler(batch_sampler).seed = sampler_seed

    batches = NumberedBatches(batch_sampler)
    changes.update(dataset=SeededDataset(dataset, seed), batch_sampler=batches)
    # DataLoader forbids setting these, because an existing iterator would not notice. Here the next
    # iterator is new, and so are persistent workers.
    vars(loader).update(changes, _iterator=None)
    return batches


def can_take_over(loader: Any) -> bool:
    """Whether a data loader has a batch sampler and a map-style dataset."""
    return (
        isinstance(loader, DataLoader)
        and loader.batch_sampler is not None
        and not isinstance(loader.dataset, torch.utils.data.IterableDataset)
    )
