"""Deformable cross-attention against mmcv's own module and against hand-made cases."""

import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention

from fastdetr_mmdet.models.cross_attention import DeformableAttention
from fastdetr_mmdet.structures import Memory, Queries

SHAPES = ((6, 9), (3, 5))  # not square: a swapped axis shows
DIMS, HEADS, POINTS, QUERIES = 32, 4, 3, 7


def make_inputs(coordinates: int, padded: bool) -> tuple[Queries, Memory]:
    tokens = sum(h * w for h, w in SHAPES)
    mask = torch.zeros(2, tokens, dtype=torch.bool)
    if padded:
        mask[1, -4:] = True
        mask[1, 40:54] = True
    memory = Memory(
        tokens=torch.randn(2, tokens, DIMS),
        pos=torch.randn(2, tokens, DIMS),
        spatial_shapes=SHAPES,
        valid_ratios=torch.tensor([[[1.0, 1.0]] * 2, [[0.8, 0.7]] * 2]),
        padding_mask=mask if padded else None,
    )
    queries = Queries(torch.randn(2, QUERIES, DIMS), torch.randn(2, QUERIES, DIMS))
    return queries.with_reference(torch.randn(2, QUERIES, coordinates)), memory


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
    queries, memory = make_inputs(coordinates, padded)
    ratios = memory.valid_ratios[:, None].repeat(1, 1, 1, coordinates // 2)
    expected = theirs(
        query=queries.content,
        query_pos=queries.pos,
        value=memory.tokens,
        identity=torch.zeros_like(queries.content),
        key_padding_mask=memory.padding_mask,
        reference_points=queries.reference[:, :, None] * ratios,
        spatial_shapes=torch.tensor(SHAPES),
        level_start_index=torch.tensor([0, 54]),
    )
    torch.testing.assert_close(ours(queries, memory), expected, rtol=1e-5, atol=1e-6)


def test_initial_offsets_point_in_all_directions() -> None:
    attention = DeformableAttention(DIMS, num_heads=4, num_levels=2, num_points=2)
    offsets = attention.sampling_offsets.bias.view(4, 2, 2, 2)
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    for point in range(2):
        for level in range(2):
            torch.testing.assert_close(
                offsets[:, level, point], directions * (point + 1), rtol=0, atol=1e-6
            )
    assert not attention.sampling_offsets.weight.any()
    assert not attention.attention_weights.weight.any()


def test_wrong_number_of_levels_is_named() -> None:
    queries, memory = make_inputs(4, padded=False)
    with pytest.raises(ValueError, match="num_levels=2, but the memory has 1 levels"):
        make_attention()(queries, memory.level(0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiled_op_equals_grid_sample() -> None:
    attention = make_attention()
    queries, memory = make_inputs(4, padded=True)
    expected = attention(queries, memory)
    on_gpu = attention.cuda()(
        Queries(queries.content.cuda(), queries.pos.cuda()).with_reference(
            queries.reference_logits.cuda()
        ),
        Memory(
            memory.tokens.cuda(),
            memory.pos.cuda(),
            SHAPES,
            memory.valid_ratios.cuda(),
            memory.padding_mask.cuda(),
        ),
    )
    torch.testing.assert_close(on_gpu.cpu(), expected, rtol=1e-4, atol=1e-5)
