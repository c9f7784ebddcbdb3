"""Dropout acts where the official code has it, in training only: the golden vectors have none."""

import pytest
import torch
from support.models import make_batch, tiny_model
from torch import nn

from fastdetr_mmdet.ops.dropout import Dropout, ReLUDropout

# Per encoder layer: two residual branches and the inside of the feed-forward block; per decoder
# layer three and one.
LAYERS = dict(encoder=(2, 3), decoder=(3, 4))


@pytest.fixture
def model():
    overrides = {f"transformer__{part}__dropout": 0.25 for part in LAYERS}
    return tiny_model(**overrides)


@pytest.mark.parametrize("training", [True, False])
def test_attention_weights(model, monkeypatch, training):
    seen = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def spy(*args, dropout_p=0.0, **kwargs):
        seen.append(dropout_p)
        return attention(*args, dropout_p=dropout_p, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    model.train(training)._forward(*make_batch())
    # an encoder layer attends once, a decoder layer twice
    assert seen == [0.25 if training else 0.0] * (2 + 2 * 3)


@pytest.mark.parametrize("part", LAYERS)
def test_branches(model, part):
    calls = []
    for module in getattr(model.transformer, part).modules():
        if isinstance(module, nn.Dropout):
            assert module.p == 0.25
            module.register_forward_hook(lambda *_: calls.append(1))
    model._forward(*make_batch())
    layers, uses = LAYERS[part]
    assert len(calls) == layers * uses


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("shape", [(3, 1001, 331), (7,)], ids=str)
def test_zeroes_and_scales(p, shape):
    """Whatever the number of elements; the gradient has the same mask and scale."""
    torch.manual_seed(0)
    x = torch.randn(shape, requires_grad=True)
    y = Dropout(p)(x)
    kept = y != 0
    scale = 1 / (1 - round(p * 2**16) / 2**16)
    assert torch.allclose(y[kept], x[kept] * scale)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(grad, kept * scale)
    if x.numel() > 1e5:
        assert kept.float().mean().sub(1 - p).abs() < 5 * (p * (1 - p) / x.numel()) ** 0.5
        assert y.mean().abs() < 5e-3
        neighbours = (kept.flatten()[1:] & kept.flatten()[:-1]).float().mean()
        assert neighbours.sub((1 - p) ** 2).abs() < 2e-3  # one draw decides four, independently


def test_seed_decides_and_evaluation_keeps_all():
    x = torch.randn(1000)
    masks = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        masks.append(Dropout(0.3)(x) == 0)
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])
    assert torch.equal(Dropout(0.3).eval()(x), x) and torch.equal(Dropout(0.0)(x), x)
    assert not Dropout(1.0)(x).any()


@pytest.mark.parametrize("training", [True, False])
def test_rectifies_and_drops(training):
    torch.manual_seed(0)
    x = torch.randn(50, 40, requires_grad=True)
    y = ReLUDropout(0.25).train(training)(x)
    kept = y > 0
    scale = 4 / 3 if training else 1.0
    assert torch.allclose(y, x * kept * scale)
    share = kept.float().mean() / (x > 0).float().mean()
    assert abs(share - (0.75 if training else 1.0)) < 0.05
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(grad, kept * scale)
