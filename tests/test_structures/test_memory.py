"""Memory and Queries: views, shapes and errors."""

import pytest
import torch
from support.memories import make_memory
from support.tolerances import assert_near

from fastdetr_mmdet.structures import Memory, Queries

SIZES = ((32, 48), (24, 32))


@pytest.fixture
def memory():
    return make_memory(SIZES, strides=(8, 16))


def test_from_maps_lays_levels_out_row_by_row():
    maps = [torch.randn(2, 3, 4, 5), torch.randn(2, 3, 2, 3)]
    masks = [torch.rand(2, 4, 5) > 0.5, torch.rand(2, 2, 3) > 0.5]
    memory = Memory.from_maps(maps, [m + 1 for m in maps], torch.ones(2, 2, 2), masks)
    assert memory.spatial_shapes == ((4, 5), (2, 3))
    assert memory.num_levels == 2
    assert memory.level_sizes == [20, 6]
    assert torch.equal(memory.tokens[1, 5 * 2 + 3], maps[0][1, :, 2, 3])
    assert torch.equal(memory.pos[0, 20 + 3 * 1 + 2], maps[1][0, :, 1, 2] + 1)
    assert memory.padding_mask[1, 5 * 2 + 3] == masks[0][1, 2, 3]
    assert memory.padding_mask[0, 20 + 3 * 1 + 2] == masks[1][0, 1, 2]


def test_maps_undo_from_maps():
    maps = [torch.randn(2, 3, 4, 5), torch.randn(2, 3, 2, 3)]
    memory = Memory.from_maps(maps, maps, torch.ones(2, 2, 2))
    for ours, original in zip(memory.maps(), maps, strict=True):
        assert torch.equal(ours, original)


@pytest.mark.parametrize("index", [0, 1, -1, -2])
def test_level_is_a_view_of_one_level(memory, index):
    level = memory.level(index)
    assert level.spatial_shapes == (memory.spatial_shapes[index],)
    assert torch.equal(level.maps()[0], memory.maps()[index])
    assert torch.equal(level.valid_ratios, memory.valid_ratios[:, [index]])
    grids = memory.grid().split(memory.level_sizes, dim=1)
    assert torch.equal(level.grid(), grids[index])
    masks = memory.padding_mask.split(memory.level_sizes, dim=1)
    assert torch.equal(level.padding_mask, masks[index])
    assert level.tokens.untyped_storage().data_ptr() == memory.tokens.untyped_storage().data_ptr()


def test_grid_is_normalised_to_the_unpadded_image():
    memory = make_memory(((32, 48), (24, 32)), strides=(8,))
    grid = memory.grid().view(2, 4, 6, 2)
    assert_near(grid[0, 1, 4], torch.tensor([4.5 / 6, 1.5 / 4]))
    assert_near(grid[1, 1, 3], torch.tensor([3.5 / 4, 1.5 / 3]))
    inside = (grid < 1).all(-1)
    assert torch.equal(inside.flatten(1), ~memory.padding_mask)


def test_attend_mask_is_the_opposite_of_padding(memory):
    assert memory.attend_mask.shape == (2, 1, 1, memory.tokens.shape[1])
    assert torch.equal(memory.attend_mask[:, 0, 0], ~memory.padding_mask)
    assert make_memory(((32, 48), (32, 48))).attend_mask is None


def test_refuses_shapes_that_do_not_add_up():
    tokens = torch.zeros(1, 7, 4)
    with pytest.raises(ValueError, match=r"holds 7 tokens but its spatial_shapes .* add up to 8"):
        Memory(tokens, tokens, ((2, 3), (1, 2)), torch.ones(1, 2, 2))


def test_reference_is_the_sigmoid_of_its_logits_in_float32():
    logits = torch.randn(2, 3, 4, dtype=torch.bfloat16)
    queries = Queries(torch.zeros(2, 3, 8)).with_reference(logits)
    assert queries.reference_logits.dtype == queries.reference.dtype == torch.float32
    assert torch.equal(queries.reference, logits.float().sigmoid())


def test_what_follows_is_computed_once_and_again_for_other_tokens():
    memory = make_memory(strides=(8, 16))
    assert memory.located is memory.located
    assert torch.equal(memory.located, memory.tokens + memory.pos)
    assert memory.attend_mask is memory.attend_mask
    assert memory.level(-1) is memory.levels[1]
    other = memory.with_tokens(memory.tokens + 1)
    assert_near(other.located, memory.located + 1)
    assert_near(other.level(1).tokens, memory.level(1).tokens + 1)
    starts = [(own.start, own.stop) for own in memory.level_slices]
    assert starts == [(0, memory.level_sizes[0]), (memory.level_sizes[0], memory.tokens.shape[1])]
