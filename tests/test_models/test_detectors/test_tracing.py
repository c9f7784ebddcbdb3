"""``torch.jit.trace`` of every shipped model gives its results, also after loading."""

import io

import pytest
import torch
from support.small import CONFIGS, EVERY_PART, small_detector
from support.versions import needs_operators


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=[pytest.mark.slow] * (name not in EVERY_PART[1::3])
            # its RoIAlign is an operator
            + [needs_operators] * ("sam" in name),
        )
        for name in CONFIGS
    ],
)
@torch.no_grad()
def test_traced_equals_eager(name):
    model = small_detector(name)
    images, others = torch.randn(2, 1, 3, 64, 96)
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(model, images, check_trace=False), file)
    file.seek(0)
    traced = torch.jit.load(file)
    for x in (images, others):
        for found, expected in zip(traced(x), model(x), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
