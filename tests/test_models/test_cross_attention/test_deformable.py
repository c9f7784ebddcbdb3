"""Deformable cross-attention against mmcv's own module."""

import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention
from support.memories import make_memory, make_queries

from fastdetr_mmdet.models.cross_attention import DeformableAttention

PADDED, NOT_PADDED = ((48, 72), (32, 56)), ((48, 72), (48, 72))
DIMS, HEADS, POINTS = 32, 4, 3


def make_attention() -> DeformableAttention:
    attention = DeformableAttention(DIMS, num_heads=HEADS, num_levels=2, num_points=POINTS)
    for parameter in attention.parameters():  # official zeros would leave much untested
        torch.nn.init.normal_(parameter, std=0.3)
    return attention.eval()


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("coordinates", [2, 4])
def test_equals_mmcv(coordinates: int, padded: bool) -> None:
    ours = make_attention()
    theirs = MultiScaleDeformableAttention(
        DIMS, HEADS, num_levels=2, num_points=POINTS, dropout=0.0, batch_first=True
    ).eval()
    renamed = {
        key.replace("out_proj", "output_proj"): value for key, value in ours.state_dict().items()
    }
    theirs.load_state_dict(renamed)
    queries = make_queries(2, 7, DIMS, reference_dims=coordinates)
    memory = make_memory(PADDED if padded else NOT_PADDED, (8, 16), DIMS)
    assert (memory.padding_mask is not None) == padded
    ratios = memory.valid_ratios[:, None].repeat(1, 1, 1, coordinates // 2)
    expected = theirs(
        query=queries.content,
        query_pos=queries.pos,
        value=memory.tokens,
        identity=torch.zeros_like(queries.content),
        key_padding_mask=memory.padding_mask,
        reference_points=queries.reference[:, :, None] * ratios,
        spatial_shapes=torch.tensor(memory.spatial_shapes),
        level_start_index=torch.tensor([0, memory.level_sizes[0]]),
    )
    torch.testing.assert_close(ours(queries, memory), expected, rtol=1e-5, atol=1e-6)


def test_starts_like_mmcv() -> None:
    """Each head looks in its own direction, each point a cell further, all with equal weights."""
    ours = DeformableAttention(DIMS, num_heads=HEADS, num_levels=2, num_points=POINTS)
    theirs = MultiScaleDeformableAttention(DIMS, HEADS, num_levels=2, num_points=POINTS)
    for name in ("sampling_offsets", "attention_weights"):
        given = (getattr(attention, name).parameters() for attention in (ours, theirs))
        for start, expected in zip(*given, strict=True):
            torch.testing.assert_close(start, expected, rtol=0, atol=1e-6)


def test_wrong_number_of_levels_is_named() -> None:
    queries, memory = make_queries(embed_dims=DIMS), make_memory(embed_dims=DIMS)
    with pytest.raises(ValueError, match="num_levels=2, but the memory has 1 levels"):
        make_attention()(queries, memory)
