"""The encoder of the SMCA paper against its blocks, called for each scale."""

from functools import partial

import pytest
import torch
from support.memories import in_double, make_memory
from support.models import build_part
from support.tolerances import assert_near

STRIDES = (8, 16, 32)  # 4 x 6, 2 x 3 and 1 x 2 cells
PADDED = ((32, 48), (24, 32))
NOT_PADDED = ((32, 48), (32, 48))
PAPER = ("intra", "intra", "multi", "intra", "intra")


build = partial(
    build_part, "SMCAEncoder", embed_dims=8, num_heads=2, feedforward_channels=12, dropout=0.0
)


@torch.no_grad()
def encode_by_hand(encoder, memory, pattern):
    """Scale by scale; test_detr_encoder.py has the block."""
    tokens = memory.tokens
    for kind, layer in zip(pattern, encoder.layers, strict=True):
        updated = []
        for own in memory.level_slices if kind == "intra" else [slice(None)]:
            mask = None if memory.attend_mask is None else memory.attend_mask[..., own]
            updated.append(layer(tokens[:, own], memory.pos[:, own], mask))
        tokens = torch.cat(updated, dim=1)
    return tokens


@pytest.mark.parametrize("image_sizes", [PADDED, NOT_PADDED], ids=["padded", "not padded"])
@pytest.mark.parametrize(
    "pattern", [PAPER, ("intra",), ("multi",), ("multi", "intra", "multi")], ids="-".join
)
def test_equals_loops(pattern, image_sizes):
    options = {} if pattern == PAPER else dict(pattern=list(pattern))  # the default is the paper's
    encoder = build(**options).double()
    memory = in_double(make_memory(image_sizes, STRIDES, embed_dims=8))
    assert (memory.padding_mask is None) == (image_sizes == NOT_PADDED)
    encoded = encoder(memory)
    assert_near(encoded.tokens, encode_by_hand(encoder, memory, pattern), torch.float64)
    assert encoded.pos is memory.pos
    assert encoded.padding_mask is memory.padding_mask
