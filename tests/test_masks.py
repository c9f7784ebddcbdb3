"""Masks per level equal nearest interpolation of the full mask, which every official code does."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tolerances import assert_near

from fastdetr_mmdet.masks import level_masks


def full_mask(image_sizes, batch_size):
    mask = torch.ones(len(image_sizes), *batch_size)
    for index, (h, w) in enumerate(image_sizes):
        mask[index, :h, :w] = 0
    return mask


sides = st.integers(1, 300)


@settings(max_examples=200, deadline=None)
@given(
    image_sizes=st.lists(st.tuples(sides, sides), min_size=1, max_size=4),
    level_sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=3),
    extra=st.tuples(st.integers(0, 70), st.integers(0, 70)),
)
def test_equals_interpolation_of_the_full_mask(image_sizes, level_sizes, extra):
    height = max(h for h, _ in image_sizes) + extra[0]
    width = max(w for _, w in image_sizes) + extra[1]
    level_sizes = [(min(h, height), min(w, width)) for h, w in level_sizes]
    masks, valid_ratios = level_masks(image_sizes, (height, width), level_sizes)
    full = full_mask(image_sizes, (height, width))
    assert (masks is None) == (full.sum() == 0)
    assert valid_ratios.shape == (len(image_sizes), len(level_sizes), 2)
    for level, size in enumerate(level_sizes):
        expected = F.interpolate(full[None], size=size, mode="nearest")[0].bool()
        if masks is not None:
            assert torch.equal(masks[level], expected)
        # the official get_valid_ratio: first row and first column
        assert torch.equal(valid_ratios[:, level, 0], (~expected[:, 0, :]).sum(1) / size[1])
        assert torch.equal(valid_ratios[:, level, 1], (~expected[:, :, 0]).sum(1) / size[0])
    assert (valid_ratios > 0).all()


def test_nothing_padded_costs_no_mask():
    masks, valid_ratios = level_masks([(64, 96)] * 3, (64, 96), [(8, 12), (4, 6)])
    assert masks is None
    assert torch.equal(valid_ratios, torch.ones(3, 2, 2))


def test_padding_of_the_whole_batch_is_padding_too():
    """DetDataPreprocessor pads to pad_size_divisor, which even a batch of one has."""
    masks, valid_ratios = level_masks([(60, 90)], (64, 96), [(16, 24)])
    assert masks[0].any()
    assert_near(valid_ratios, torch.tensor([[[23 / 24, 15 / 16]]]))


def test_results_go_to_the_device(device):
    masks, valid_ratios = level_masks([(32, 64), (64, 32)], (64, 64), [(8, 8)], device)
    assert masks[0].device.type == valid_ratios.device.type == device.type


@pytest.mark.parametrize("size", [(65, 96), (64, 97)])
def test_refuses_an_image_larger_than_its_batch(size):
    with pytest.raises(ValueError, match=f"{size[0]}x{size[1]} .* does not fit its batch of 64x96"):
        level_masks([(64, 96), size], (64, 96), [(8, 12)])
