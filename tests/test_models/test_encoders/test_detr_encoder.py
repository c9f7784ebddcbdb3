"""The dense encoder against torch's own."""

import torch
from mmdet.registry import MODELS
from support.memories import make_memory
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
    """Positions are added to queries and keys, not to values; norms come after residuals."""
    encoder, memory = build(), make_memory(strides=(8, 16))
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
