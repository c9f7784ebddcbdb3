"""Dropout is where the official code has it, in training only; golden vectors have none."""

import pytest
import torch
from support.models import make_batch, tiny_model
from support.versions import needs_zeros_for_blind_queries
from torch import nn

from fastdetr_mmdet.models.layers import attention as layers
from fastdetr_mmdet.ops.dropout import Dropout, ReLUDropout, drop_and_mix

# Encoder layer: two residual branches and the feed-forward block; decoder layer: three and one.
LAYERS = dict(encoder=(2, 3), decoder=(3, 4))


@pytest.fixture
def model():
    overrides = {f"transformer__{part}__dropout": 0.25 for part in LAYERS}
    return tiny_model(**overrides)


@pytest.mark.parametrize("training", [True, False])
def test_attention_weights(model, monkeypatch, training):
    seen = []

    def spy(weights, value, p):
        seen.append(p)
        return drop_and_mix(weights, value, p)

    monkeypatch.setattr(layers, "drop_and_mix", spy)
    model.train(training)._forward(*make_batch())
    # encoder layers have one attention, decoder layers two
    assert seen == [0.25] * (2 + 2 * 3 if training else 0)


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
    """For any number of elements; the gradient has the same mask and scale."""
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
        assert neighbours.sub((1 - p) ** 2).abs() < 2e-3  # one draw covers four, independently


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


@pytest.mark.parametrize(("dropout", "value_dims"), [(0.5, 24), (0.0, 12)])
@pytest.mark.parametrize(
    "bias",
    [
        "none",
        pytest.param("mask", marks=needs_zeros_for_blind_queries),
        pytest.param("prior", marks=needs_zeros_for_blind_queries),
    ],
)
def test_attention_written_out_is_torchs(monkeypatch, bias, dropout, value_dims):
    """Equal values and gradients except for dropout, also for fully masked queries."""
    torch.manual_seed(0)
    sizes = [(5, 24), (7, 24), (7, value_dims)]
    inputs = [torch.randn(2, *size, requires_grad=True) for size in sizes]
    permitted = torch.rand(2, 1, 5, 7) > 0.4
    permitted[0, 0, 2] = False
    prior = torch.randn(2, 4, 5, 7).masked_fill(~permitted, float("-inf"))
    bias = dict(none=None, mask=permitted, prior=prior)[bias]
    direction = torch.randn(2, 5, value_dims)

    def attended(dropout):
        result = layers.attend(*inputs, 4, bias, dropout)
        return result, *torch.autograd.grad((result * direction).sum(), inputs)

    monkeypatch.setattr(layers, "drop_and_mix", lambda weights, value, p: weights @ value)
    ours = attended(dropout)
    monkeypatch.setattr(layers, "_attend_plainly", None)
    monkeypatch.setattr(layers, "on_plain_cpu", lambda x: False)
    for written_out, torchs in zip(ours, attended(0.0), strict=True):
        assert torch.isfinite(written_out).all()
        torch.testing.assert_close(written_out, torchs)


def test_dropped_weights():
    """The gradient flows through kept weights, scaled, and not through zero weights."""
    torch.manual_seed(0)
    scores = torch.randn(3, 4, 200, 300)
    scores[..., :9] = float("-inf")
    weights = scores.softmax(-1).requires_grad_()
    value = torch.randn(3, 4, 300, 8, requires_grad=True)
    torch.manual_seed(1)
    mixed = drop_and_mix(weights, value, 0.25)
    torch.manual_seed(1)
    kept = Dropout(0.25)(torch.ones_like(weights))
    expected = (weights * kept) @ value
    torch.testing.assert_close(mixed, expected)
    direction = torch.randn_like(mixed)
    ours, torchs = (
        torch.autograd.grad((x * direction).sum(), (weights, value)) for x in (mixed, expected)
    )
    counted = weights > 0
    torch.testing.assert_close(ours[0] * counted, torchs[0] * counted)
    torch.testing.assert_close(ours[1], torchs[1])
