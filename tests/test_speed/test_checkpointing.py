"""``with_cp`` gives the same gradients with less memory."""

import pytest
import torch
from support.models import make_batch
from support.small import EVERY_PART, small_detector


def step(name, with_cp):
    """Losses, gradients, and bytes kept between forward and backward."""
    both = dict.fromkeys(
        ("transformer__encoder__with_cp", "transformer__decoder__with_cp"), with_cp
    )
    model = small_detector(name, **both).train()
    torch.manual_seed(1)  # the same dropout
    sizes, held = {}, []

    def note(x):
        sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        held.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        losses = model.loss(*make_batch())
    sum(losses.values()).backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    return losses, grads, sum(sizes.values())


@pytest.mark.parametrize("name", EVERY_PART)
def test_gradients_are_equal(name):
    (losses, grads, size), (cp_losses, cp_grads, cp_size) = step(name, False), step(name, True)
    torch.testing.assert_close(cp_losses, losses, rtol=0, atol=0)
    assert grads.keys() == cp_grads.keys()
    for key, grad in grads.items():
        assert grad is not None, key
        torch.testing.assert_close(cp_grads[key], grad, rtol=1e-5, atol=1e-7, msg=key)
    assert cp_size < 0.8 * size  # the backbone's share does not shrink


def test_evaluation_keeps_nothing(monkeypatch):
    model = small_detector(EVERY_PART[0], transformer__encoder__with_cp=True)
    monkeypatch.setattr(
        "fastdetr_mmdet.models.layers.mlp.checkpoint", lambda *a, **k: pytest.fail("called")
    )
    with torch.no_grad():
        model._forward(*make_batch())
