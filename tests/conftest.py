"""Fixtures for all tests; registries are set up as by mmdet's tools."""

import logging
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from mmdet.utils import register_all_modules
from support.forks import processes  # noqa: F401 (fixture)
from support.runs import (
    make_runs_quick,
    no_steps,  # noqa: F401 (fixture)
    shapes,  # noqa: F401 (fixture)
    tiny_config_file,  # noqa: F401 (fixture)
    tiny_run,  # noqa: F401 (fixture)
)

import fastdetr_mmdet  # noqa: F401 (registers our parts)

register_all_modules(init_default_scope=True)
make_runs_quick()


@pytest.fixture(autouse=True)
def seed() -> int:
    """Start every test from the same random state."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (the global state that mmdet's transforms draw from)
    torch.manual_seed(0)
    return 0


@pytest.fixture(autouse=True)
def logging_stays_on() -> Iterator[None]:
    """Keep logging on, which benchmarks turn off."""
    yield
    logging.disable(logging.NOTSET)
