"""Attention against a step-by-step implementation, and shared blocks."""

import pytest
import torch
from mmdet.registry import MODELS
from support.by_hand import attend_by_hand
from support.tolerances import BY_DTYPE, assert_near
from support.versions import needs_half_on_cpu
from torch import nn

from fastdetr_mmdet.models.layers import MLP, attend, mlp
from fastdetr_mmdet.structures import Memory

BS, NUM_HEADS, NUM_QUERIES, NUM_KEYS = 2, 4, 5, 7


def expected(query, key, value, bias):
    heads = [x.unflatten(-1, (NUM_HEADS, -1)) for x in (query, key, value)]
    if bias is not None and bias.dtype == torch.bool:
        bias = torch.zeros(bias.shape).masked_fill(~bias, -torch.inf)
    return attend_by_hand(*heads, scale=heads[0].shape[-1] ** -0.5, bias=bias).float()


def biases():
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(BS, 1, 1, NUM_KEYS, generator=generator) > 0.4
    mask[..., 0] = True
    full = torch.randn(BS, NUM_HEADS, NUM_QUERIES, NUM_KEYS, generator=generator)
    return {
        "none": None,
        "bool": mask,
        "float": full,
        "float for all heads": full[:, :1],
        "float with -inf": full.masked_fill(~mask, -torch.inf),
    }


@pytest.mark.parametrize("bias", biases().values(), ids=biases().keys())
@pytest.mark.parametrize("key_dims, value_dims", [(16, 16), (32, 16), (16, 32)])
def test_equals_attention_written_out(bias, key_dims, value_dims):
    query = torch.randn(BS, NUM_QUERIES, key_dims)
    key = torch.randn(BS, NUM_KEYS, key_dims)
    value = torch.randn(BS, NUM_KEYS, value_dims)
    output = attend(query, key, value, NUM_HEADS, bias)
    assert output.shape == (BS, NUM_QUERIES, value_dims)
    assert_near(output, expected(query, key, value, bias))


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, pytest.param(torch.float16, marks=needs_half_on_cpu)]
)
def test_takes_a_float32_bias_at_half_precision(dtype):
    query, key, value = (torch.randn(BS, NUM_KEYS, 16).to(dtype) for _ in range(3))
    bias = torch.randn(BS, NUM_HEADS, NUM_KEYS, NUM_KEYS)
    output = attend(query, key, value, NUM_HEADS, bias)
    exact = expected(query.float(), key.float(), value.float(), bias)
    assert output.dtype == dtype
    assert_near(output.float(), exact, dtype, **BY_DTYPE[torch.bfloat16])


def test_mlp_has_relu_between_its_layers_only():
    mlp = MLP(3, 8, 2, num_layers=3)
    first, second, third = (layer for layer in mlp if isinstance(layer, nn.Linear))
    x = torch.randn(4, 3)
    assert_near(mlp(x), third(second(first(x).relu()).relu()))
    assert [layer.out_features for layer in (first, second, third)] == [8, 8, 2]


@needs_half_on_cpu
def test_a_far_prior_does_not_underflow_in_half_precision():
    """The softmax depends on differences only, but float16 ends at -65504."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(BS, n, 16) for n in (NUM_QUERIES, NUM_KEYS, NUM_KEYS))
    near = torch.randn(BS, NUM_HEADS, NUM_QUERIES, NUM_KEYS)
    exact = attend(query, key, value, NUM_HEADS, near)
    halved = (x.half() for x in (query, key, value))
    found = attend(*halved, NUM_HEADS, near - 1e5)
    # shifted so far, the prior keeps at most seven fractional bits
    assert_near(found.float(), exact, rtol=0, atol=0.02)


@pytest.mark.parametrize("encoder", ["DetrEncoder", "DeformableDetrEncoder"])
def test_tokens_apart_are_tokens_together(monkeypatch, encoder):
    """Without gradient an encoder works in chunks of tokens, with the same result."""
    torch.manual_seed(0)
    levels = dict(num_levels=1) if encoder.startswith("Deformable") else {}
    module = MODELS.build(
        dict(
            type=encoder, embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=8, **levels
        )
    ).eval()
    memory = Memory(
        tokens=torch.randn(2, 35, 16),
        pos=torch.randn(2, 35, 16),
        spatial_shapes=((5, 7),),
        valid_ratios=torch.ones(2, 1, 2),
    )
    together = module(memory).tokens.detach()
    monkeypatch.setattr(mlp, "_TOKENS", 16)
    parts = []
    norm = module.layers[0].norm2
    norm.register_forward_hook(lambda *args: parts.append(args[1][0].shape[0]))
    with torch.no_grad():
        apart = module(memory).tokens
    assert parts == [16, 16, 16, 16, 6]
    torch.testing.assert_close(apart, together)
