"""Masks per level equal nearest interpolation of the full mask, as in the official codes."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdetr_mmdet.structures.padding import host_shapes, level_masks


def full_mask(image_sizes, batch_size):
    mask = torch.ones(len(image_sizes), *batch_size)
    for index, (h, w) in enumerate(image_sizes):
        mask[index, :h, :w] = 0
    return mask


sides = st.integers(1, 300)


level_sizes = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=4, max_size=4)


@settings(max_examples=150, deadline=None)
@given(
    image_sizes=st.lists(st.tuples(sides, sides), min_size=1, max_size=4),
    level_sizes=level_sizes,
    extra=st.sampled_from([(0, 0), (0, 31), (70, 5)]),
    mask_from=st.tuples(*[st.sampled_from([None, *range(level)]) for level in range(4)]),
)
def test_equals_interpolation_of_the_mask(image_sizes, level_sizes, extra, mask_from):
    """Of the full mask, or of a level's with ``mask_from``."""
    height, width = (
        max(side) + more for side, more in zip(zip(*image_sizes, strict=True), extra, strict=True)
    )
    full = full_mask(image_sizes, (height, width))
    masks, valid_ratios = level_masks(
        image_sizes, (height, width), level_sizes, mask_from=mask_from
    )
    assert (masks is None) == (full.sum() == 0)
    assert valid_ratios.shape == (len(image_sizes), len(level_sizes), 2)
    expected: list[torch.Tensor] = []
    for level, (size, source) in enumerate(zip(level_sizes, mask_from, strict=True)):
        from_ = full if source is None else expected[source].float()
        expected.append(F.interpolate(from_[None], size=size, mode="nearest")[0].bool())
        if masks is not None:
            assert torch.equal(masks[level], expected[level])
        # the official get_valid_ratio: first row and first column
        assert torch.equal(valid_ratios[:, level, 0], (~expected[level][:, 0]).sum(1) / size[1])
        assert torch.equal(valid_ratios[:, level, 1], (~expected[level][:, :, 0]).sum(1) / size[0])
    assert (valid_ratios > 0).all()


@pytest.mark.parametrize("size", [(65, 96), (64, 97)])
def test_refuses_an_image_larger_than_its_batch(size):
    with pytest.raises(ValueError, match=f"{size[0]}x{size[1]} .* does not fit its batch of 64x96"):
        level_masks([(64, 96), size], (64, 96), [(8, 12)])


@pytest.mark.parametrize("mask_from", [(None,), (None, 0, 1), (0, None), (None, 1), (None, -1)])
def test_refuses_sources_that_do_not_fit(mask_from):
    message = r"must have one entry per level \(2\), each None or the index of an earlier level"
    with pytest.raises(ValueError, match=message):
        level_masks([(60, 90)], (64, 96), [(8, 12), (4, 6)], mask_from=mask_from)


@settings(max_examples=50, deadline=None)
@given(
    image_sizes=st.lists(st.tuples(sides, sides), min_size=1, max_size=4), level_sizes=level_sizes
)
def test_host_shapes_count_the_cells_of_the_image(image_sizes, level_sizes):
    batch_size = tuple(max(side) + 7 for side in zip(*image_sizes, strict=True))
    masks, valid_ratios = level_masks(image_sizes, batch_size, level_sizes)
    assert masks is not None
    expected = tuple(
        tuple((int((~m[:, 0]).sum()), int((~m[0]).sum())) for m in level) for level in masks
    )
    assert host_shapes(valid_ratios, level_sizes) == expected
