"""Fixtures for all tests, and the registries as mmdet's tools set them up."""

import gc
import random

import numpy as np
import pytest
import torch
from mmdet.utils import register_all_modules
from support.runs import shapes, tiny_config_file, tiny_run  # noqa: F401 (fixtures)
from yapf.yapflib import yapf_api

import fastdetr_mmdet  # noqa: F401 (registers our parts)

register_all_modules(init_default_scope=True)
# mmengine collects garbage for every data set, 0.4 s with all that is imported.
gc.freeze()
# It writes the config of a run six times, 0.5 s each for line breaks. Subprocesses still do.
yapf_api.FormatCode = lambda text, **_: (text, True)


@pytest.fixture(autouse=True)
def seed() -> int:
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (the global state that mmdet's transforms draw from)
    torch.manual_seed(0)
    return 0


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            ],
        ),
    ]
)
def device(request) -> torch.device:
    """The CPU and, where there is one, the GPU."""
    return torch.device(request.param)
