"""The encoder of the SMCA paper against its blocks written as loops over images, heads and keys."""

import re

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from support.by_hand import attend_by_hand
from support.memories import in_double, make_memory
from support.models import randomise
from support.tolerances import assert_near

DIMS, HEADS = 8, 2
STRIDES = (8, 16, 32)  # 4 x 6, 2 x 3 and 1 x 2 cells
PADDED = ((32, 48), (24, 32))
NOT_PADDED = ((32, 48), (32, 48))
PAPER = ("intra", "intra", "multi", "intra", "intra")


def build(**kwargs):
    torch.manual_seed(0)
    config = dict(
        type="SMCAEncoder",
        embed_dims=DIMS,
        num_heads=HEADS,
        feedforward_channels=12,
        dropout=0.0,
    )
    return randomise(MODELS.build(config | kwargs))


def memory_of(image_sizes=PADDED):
    return make_memory(image_sizes, STRIDES, DIMS)


def block_by_hand(layer, tokens, pos, padding):
    """DETR's block: attention and feed-forward, each with residual, then norm."""
    weights, biases = layer.in_proj.proj.weight.chunk(3), layer.in_proj.proj.bias.chunk(3)
    query, key, value = (
        F.linear(x, weight, bias).unflatten(-1, (HEADS, -1))
        for x, weight, bias in zip(
            (tokens + pos, tokens + pos, tokens), weights, biases, strict=True
        )
    )
    attended = attend_by_hand(query, key, value, scale=(DIMS / HEADS) ** -0.5, padding=padding)
    tokens = tokens + F.linear(attended, layer.out_proj.weight, layer.out_proj.bias)
    tokens = F.layer_norm(tokens, (DIMS,), layer.norm1.weight, layer.norm1.bias)
    hidden = F.linear(tokens, layer.ffn.linear1.weight, layer.ffn.linear1.bias).clamp(min=0)
    tokens = tokens + F.linear(hidden, layer.ffn.linear2.weight, layer.ffn.linear2.bias)
    return F.layer_norm(tokens, (DIMS,), layer.norm2.weight, layer.norm2.bias)


@torch.no_grad()
def encode_by_hand(encoder, memory, pattern):
    tokens = memory.tokens
    for kind, layer in zip(pattern, encoder.layers, strict=True):
        sizes = memory.level_sizes if kind == "intra" else [sum(memory.level_sizes)]
        updated, start = [], 0
        for size in sizes:
            own = slice(start, start + size)
            start += size
            padding = None if memory.padding_mask is None else memory.padding_mask[:, own]
            updated.append(block_by_hand(layer, tokens[:, own], memory.pos[:, own], padding))
        tokens = torch.cat(updated, dim=1)
    return tokens


@pytest.mark.parametrize("image_sizes", [PADDED, NOT_PADDED], ids=["padded", "not padded"])
@pytest.mark.parametrize(
    "pattern", [PAPER, ("intra",), ("multi",), ("multi", "intra", "multi")], ids="-".join
)
def test_equals_loops(pattern, image_sizes):
    options = {} if pattern == PAPER else dict(pattern=list(pattern))  # the default is the paper's
    encoder = build(**options).double()
    memory = in_double(memory_of(image_sizes))
    assert (memory.padding_mask is None) == (image_sizes == NOT_PADDED)
    encoded = encoder(memory)
    assert_near(encoded.tokens, encode_by_hand(encoder, memory, pattern), torch.float64)
    assert encoded.pos is memory.pos
    assert encoded.padding_mask is memory.padding_mask


@pytest.mark.parametrize("pattern", [[], ["intra", "cross"]])
def test_refuses(pattern):
    with pytest.raises(ValueError, match=re.escape(f"pattern={pattern}")):
        build(pattern=pattern)
