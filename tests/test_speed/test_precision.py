"""Every method trains and predicts in bfloat16 and float16, near its float32 results."""

import pytest
import torch
from support.models import make_batch
from support.small import small_detector

MODELS = [
    "conditional_detr/conditional-detr_r50_8xb2-50e_coco",
    "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco",
    "smca_detr/smca-detr_r50_8xb2-50e_coco",
    "smca_detr/smca-detr-ms_r50_8xb1-50e_coco",
    "sam_detr/sam-detr_r50_4xb4-50e_coco",
    "sam_detr/sam-detr-ms-smca_r50_8xb2-50e_coco",
]
# Relative error of the loss: some hundred roundings of 2**-8 and 2**-11.
TOLERANCES = {torch.bfloat16: 0.01, torch.float16: 0.002}
# Of the gradients by all parameters. Backwards through random weights roundings grow: float16's
# turn it by up to 0.2 (0.98), and bfloat16's are eight times as large.
COSINES = {torch.bfloat16: 0.4, torch.float16: 0.97}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_near_float32(name, dtype):
    """Gradients of a smooth function: another matching is another loss, not a wrong one."""
    model = small_detector(name)  # evaluation mode: no dropout
    totals, grads = [], []
    for autocast in (False, True):
        with torch.autocast("cpu", dtype, enabled=autocast):
            total = sum(model.loss(*make_batch()).values())
        total.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
        totals.append(float(total.detach()))
        model.zero_grad()
        with torch.autocast("cpu", dtype, enabled=autocast):
            logits, boxes = model._forward(*make_batch())
        (logits.float().square().mean() + boxes.square().mean()).backward()
        trained = [p.grad for p in model.parameters() if p.grad is not None]
        assert all(grad.dtype == torch.float32 for grad in trained)
        grads.append(torch.cat([grad.flatten() for grad in trained]))
        model.zero_grad()
    assert abs(totals[1] / totals[0] - 1) < TOLERANCES[dtype]
    assert torch.cosine_similarity(*grads, dim=0) > COSINES[dtype]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_boxes_stay_in_float32(name, dtype):
    model = small_detector(name)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        logits, boxes = model._forward(*make_batch())
    assert boxes.dtype == torch.float32
    assert logits.dtype in (dtype, torch.float32)
