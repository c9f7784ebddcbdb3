"""All tolerances of the tests."""

from __future__ import annotations

import torch
from torch.testing import assert_close

# Bounds of rounding errors in small models, by type.
BY_DTYPE = {
    torch.float64: dict(rtol=1e-9, atol=1e-11),
    torch.float32: dict(rtol=1e-4, atol=2e-5),
    torch.bfloat16: dict(rtol=4e-2, atol=4e-2),
    torch.float16: dict(rtol=5e-3, atol=5e-3),
}

# Against golden vectors: absolute for tensors, relative for losses and gradients (to at least the
# largest norm times GRADIENT_FLOOR).
GOLDEN = {
    "pos": 1e-6,
    "src": 2e-4,
    "memory": 2e-4,
    "references": 5e-5,
    "hidden states": 5e-4,
    "logits": 5e-4,
    "boxes": 5e-5,
    "losses": 5e-5,
    "gradient norms": 2e-2,
    "gradient projections": 2e-2,
    "scores": 1.5e-4,
    "result boxes": 5e-2,  # in pixels
}
GRADIENT_FLOOR = 1e-5


def assert_near(actual, expected, dtype: torch.dtype = torch.float32, **kwargs) -> None:
    """``assert_close`` with the tolerance of the computation's type."""
    assert_close(actual, expected, **{**BY_DTYPE[dtype], **kwargs})


def assert_same(actual, expected) -> None:
    """Require the same keys and values of two state dicts."""
    assert actual.keys() == expected.keys()
    assert [key for key in expected if not torch.equal(actual[key], expected[key])] == []
