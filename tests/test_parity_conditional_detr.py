"""Conditional DETR computes what the official code computes (shared helpers: support/golden.py)."""

import pytest
import torch
from support.golden import GoldenCase, measure, too_large
from support.tolerances import GOLDEN, assert_near


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("conditional_r50", marks=pytest.mark.smoke),
        "conditional_r50_dc5",
        "conditional_r101",
    ],
)
def test_equals_official_code(name):
    assert too_large(measure(GoldenCase(name))) == []


def test_images_do_not_see_their_batch():
    """Nor its size; all on the same canvas, since CNNs see the padding."""
    case = GoldenCase("conditional_r50")
    model = case.build().eval()
    inputs, samples = case.batch((1, 0, 1))
    with torch.no_grad():
        together = model._forward(inputs, samples)
        for image in range(3):
            alone = model._forward(inputs[image : image + 1], samples[image : image + 1])
            for ours, expected, name in zip(together, alone, ("logits", "boxes"), strict=True):
                assert_near(ours[:, image], expected[:, 0], rtol=0, atol=GOLDEN[name])
