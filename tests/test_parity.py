"""Our detectors compute what the official codes compute (shared helpers: support/golden.py)."""

import pytest
import torch
from support.golden import CASES, GoldenCase, measure, too_large
from support.tolerances import GOLDEN, assert_near

# One case of each method for the second stack too
SMOKE = {"conditional_r50", "deformable_two_stage", "smca_ms_conv", "sam_r50_smca_e12"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.smoke if name in SMOKE else ()) for name in CASES],
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
