"""Random numbers that follow from where training stands, not from how it came there.

Storing the generators' states would not do: the worker processes that augment images have states of
their own, which nobody can read, they run ahead of training, and a validation or an iterator that
one run makes and the resumed run does not draws from the main process's. So nothing is stored;
instead all generators are seeded anew from the run's seed and a position, again and again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# ruff: noqa: NPY002 (the global state of numpy is what mmdet's transforms draw from)


def seed_generators(*position: int) -> None:
    """Seed the global generators of python, numpy and torch, those of GPUs included.

    Args:
        position: Numbers that name the place, not negative and always equally many.
    """
    for_python, for_numpy, for_torch = _seeds(position)
    random.seed(for_python)
    np.random.seed(for_numpy)
    torch.manual_seed(for_torch)


@contextmanager
def seeded_generators(*position: int) -> Iterator[None]:
    """Within it the generators of the CPU are seeded; afterwards they are as they were before."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    for_python, for_numpy, for_torch = _seeds(position)
    random.seed(for_python)
    np.random.seed(for_numpy)
    torch.default_generator.manual_seed(for_torch)  # torch.manual_seed would seed GPUs as well
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def _seeds(position: tuple[int, ...]) -> list[int]:
    """Three seeds that are as good as independent of those of any other position."""
    return np.random.SeedSequence(position).generate_state(3).tolist()
