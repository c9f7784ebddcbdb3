"""The deformable encoder against mmdet's own."""

import pytest
import torch
from mmdet.models.layers import DeformableDetrTransformerEncoder
from mmdet.registry import MODELS
from support.memories import make_memory
from support.models import EMBED_DIMS, NUM_HEADS, randomise
from support.tolerances import assert_near

POINTS, CHANNELS = 3, 48
STRIDES = {1: (8,), 3: (8, 16, 32)}
PADDED = ((64, 96), (40, 72))
NOT_PADDED = ((64, 96), (64, 96))


def build(num_levels, **kwargs):
    torch.manual_seed(0)
    config = dict(
        type="DeformableDetrEncoder",
        embed_dims=EMBED_DIMS,
        num_layers=2,
        num_heads=NUM_HEADS,
        num_levels=num_levels,
        num_points=POINTS,
        feedforward_channels=CHANNELS,
        dropout=0.0,
    )
    return randomise(MODELS.build(config | kwargs))


def with_weights_of(ours, num_levels):
    """mmdet's encoder with this package's parameters."""
    attention = dict(
        embed_dims=EMBED_DIMS,
        num_heads=NUM_HEADS,
        num_levels=num_levels,
        num_points=POINTS,
        dropout=0.0,
        batch_first=True,
    )
    feedforward = dict(embed_dims=EMBED_DIMS, feedforward_channels=CHANNELS, ffn_drop=0.0)
    theirs = DeformableDetrTransformerEncoder(
        num_layers=2, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=feedforward)
    )
    renamed = {}
    for name, tensor in ours.state_dict().items():
        for old, new in {
            "self_attn.out_proj": "self_attn.output_proj",
            "ffn.linear1": "ffn.layers.0.0",
            "ffn.linear2": "ffn.layers.1",
            "norm1": "norms.0",
            "norm2": "norms.1",
        }.items():
            name = name.replace(old, new)
        renamed[name] = tensor
    theirs.load_state_dict(renamed)
    return theirs


@pytest.mark.filterwarnings("ignore:torch.meshgrid")  # mmdet's
@pytest.mark.parametrize("image_sizes", [PADDED, NOT_PADDED], ids=["padded", "not padded"])
@pytest.mark.parametrize("num_levels", STRIDES)
def test_equals_mmdet(num_levels, image_sizes):
    ours, memory = build(num_levels), make_memory(image_sizes, STRIDES[num_levels])
    assert (memory.padding_mask is None) == (image_sizes == NOT_PADDED)
    shapes = torch.tensor(memory.spatial_shapes)
    starts = torch.tensor([sum(memory.level_sizes[:level]) for level in range(num_levels)])
    expected = with_weights_of(ours, num_levels)(
        query=memory.tokens,
        query_pos=memory.pos,
        key_padding_mask=memory.padding_mask,
        spatial_shapes=shapes,
        level_start_index=starts,
        valid_ratios=memory.valid_ratios,
    )
    encoded = ours(memory)
    assert_near(encoded.tokens, expected)
    assert encoded.pos is memory.pos
    assert encoded.spatial_shapes == memory.spatial_shapes
