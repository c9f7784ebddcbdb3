"""Random numbers that follow from where training stands, not from how it came there.

Storing the generators' states would not do: the worker processes that augment images have states of
their own, which nobody can read, they run ahead of training, and a validation or an iterator that
one run makes and the resumed run does not draws from the main process's. So nothing is stored;
instead all generators are seeded anew from the run's seed and a position, again and again.
"""

from __future__ import annotations

import random

import numpy as np
import torch

# ruff: noqa: NPY002 (the global state of numpy is what mmdet's transforms draw from)


def seed_generators(*position: int) -> None:
    """Seed the global generators of python, numpy and torch, those of GPUs included.

    Args:
        position: Numbers that name the place, not negative and always equally many.
    """
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
