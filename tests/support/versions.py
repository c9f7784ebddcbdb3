"""Skip marks for older versions of torch (docs/install.md)."""

from __future__ import annotations

import pytest
import torch
from packaging.version import Version


def needs_torch(version: str, lack: str) -> pytest.MarkDecorator:
    """Skip below a version of torch, because of torch's ``lack``."""
    old = Version(torch.__version__) < Version(version)
    return pytest.mark.skipif(old, reason=f"torch < {version} {lack}")


needs_operators = needs_torch("2.4", "has no torch.library.custom_op")
needs_cuda_without_gpu = needs_torch("2.4", "without a GPU makes no CUDA tensor, even without data")
needs_half_on_cpu = needs_torch("2.4", "may lack float16 on the CPU, as 2.1 does")
needs_zeros_for_blind_queries = needs_torch("2.5", "has NaN where a query may attend to nothing")
