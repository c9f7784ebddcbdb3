"""The dense encoder against torch's own, and what padding and batching may not change."""

import pytest
import torch
from mmdet.registry import MODELS
from support.memories import make_memory, only, with_other_padding, without_padding
from support.models import EMBED_DIMS, NUM_HEADS, randomise
from support.tolerances import assert_near
from torch import nn


def build(**kwargs):
    torch.manual_seed(0)
    config = dict(
        type="DetrEncoder",
        embed_dims=EMBED_DIMS,
        num_layers=2,
        num_heads=NUM_HEADS,
        feedforward_channels=48,
        dropout=0.0,
    )
    return randomise(MODELS.build(config | kwargs))


def test_equals_torch():
    """Positions are added to queries and keys and not to values; norms come after residuals."""
    encoder, memory = build(), make_memory()
    tokens = memory.tokens
    for layer in encoder.layers:
        attention = nn.MultiheadAttention(EMBED_DIMS, NUM_HEADS, batch_first=True)
        attention.in_proj_weight.data = layer.in_proj.proj.weight.data
        attention.in_proj_bias.data = layer.in_proj.proj.bias.data
        attention.out_proj.load_state_dict(layer.out_proj.state_dict())
        located = tokens + memory.pos
        attended, _ = attention(located, located, tokens, key_padding_mask=memory.padding_mask)
        tokens = layer.norm1(tokens + attended)
        tokens = layer.norm2(tokens + layer.ffn.linear2(layer.ffn.linear1(tokens).relu()))
    valid = ~memory.padding_mask
    assert_near(encoder(memory).tokens[valid], tokens[valid])


@pytest.mark.parametrize("strides", [(8,), (8, 16, 32)])
def test_images_do_not_see_each_other(strides):
    encoder, memory = build(), make_memory(strides=strides)
    together = encoder(memory)
    assert together.tokens.shape == memory.tokens.shape
    assert together.pos is memory.pos
    for image in range(2):
        assert_near(together.tokens[image : image + 1], encoder(only(memory, image)).tokens)


def test_padding_is_invisible():
    encoder, memory = build(), make_memory()
    valid = ~memory.padding_mask
    tokens = encoder(memory).tokens
    assert torch.equal(encoder(with_other_padding(memory)).tokens[valid], tokens[valid])
    assert_near(encoder(without_padding(memory, 1)).tokens[0], tokens[1][valid[1]])


def test_positions_matter():
    encoder, memory = build(), make_memory()
    moved = make_memory()
    moved.pos.mul_(-1)
    assert not torch.allclose(encoder(memory).tokens, encoder(moved).tokens)


def test_levels_see_each_other():
    encoder = build()
    memory, other = make_memory(strides=(8, 16)), make_memory(strides=(8, 16))
    fine = memory.level_sizes[0]
    other.tokens[:, fine:] += 1
    assert not torch.allclose(encoder(memory).tokens[:, :fine], encoder(other).tokens[:, :fine])


def test_dropout_in_training_only():
    encoder, memory = build(dropout=0.5), make_memory()
    assert not torch.equal(encoder.train()(memory).tokens, encoder(memory).tokens)
    assert torch.equal(encoder.eval()(memory).tokens, encoder(memory).tokens)


def test_heads_must_divide():
    with pytest.raises(ValueError, match="DetrEncoder: embed_dims=32 is not divisible by num_head"):
        build(num_heads=5)
