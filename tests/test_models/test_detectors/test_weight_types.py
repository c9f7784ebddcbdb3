"""``model.double()``, ``.half()`` and ``.bfloat16()`` predict like the float32 model."""

import pytest
import torch
from support.models import make_batch
from support.small import CONFIGS, EVERY_PART, small_detector
from support.versions import needs_half_on_cpu

# Relative to the type's unit of rounding: the roundings of two layers' depth, which partly cancel.
ROUNDINGS = 16


def outputs(name, dtype):
    """Logits and boxes of the last layer, for float32 images."""
    model = small_detector(name).to(dtype)
    two_stage = model.bbox_head.as_two_stage
    if two_stage:  # every proposal is a query, so rounding changes only their order
        model.transformer.queries.num_queries = 10_000
    images, samples = make_batch(sizes=((64, 96), (48, 64)))
    logits, boxes = model._forward(images, samples)
    coordinates = torch.promote_types(dtype, torch.float32)
    assert (logits.dtype, boxes.dtype) == (dtype, coordinates)
    for sample in model.predict(images, samples):
        found = sample.pred_instances
        assert found.bboxes.dtype == found.scores.dtype == coordinates
    last = [logits[-1].double(), boxes[-1].double()]
    return [x.sort(dim=1).values for x in last] if two_stage else last


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in EVERY_PART[1::2] else pytest.mark.slow) for n in CONFIGS],
)
@needs_half_on_cpu
@torch.no_grad()
def test_near_float32(name):
    expected = outputs(name, torch.float32)
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        unit = torch.finfo(torch.float32 if dtype == torch.float64 else dtype).eps
        for found, wanted in zip(outputs(name, dtype), expected, strict=True):
            assert (found - wanted).norm() < ROUNDINGS * unit * wanted.norm(), dtype


@pytest.mark.parametrize("name", ["smca_detr/smca-detr-ms_r50_8xb1-50e_coco"])
def test_trains_in_float64(name):
    """Losses of the float32 model, and a gradient of the weights' type."""
    totals = []
    for dtype in (torch.float32, torch.float64):
        model = small_detector(name).to(dtype)
        total = sum(model.loss(*make_batch()).values())
        total.backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        assert all(p.grad.dtype == dtype and p.grad.isfinite().all() for p in trained)
        totals.append(float(total.detach()))
    assert totals[0] == pytest.approx(totals[1], rel=1e-5)
