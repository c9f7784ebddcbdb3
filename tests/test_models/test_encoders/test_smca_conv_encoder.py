"""The convolutional encoder of SMCA's released code against plain functional convolutions."""

import pytest
import torch
import torch.nn.functional as F
from support.memories import in_double, make_memory, with_other_padding
from support.models import build_part
from support.tolerances import assert_near

from fastdetr_mmdet.structures import Memory

DIMS = 8
STRIDES = {1: (8,), 2: (8, 16), 4: (8, 16, 32, 64)}
EVEN = ((128, 192), (128, 192))  # 16 x 24, 8 x 12, 4 x 6, 2 x 3 cells
ODD = ((40, 72), (24, 56))  # 5 x 9, 3 x 5, 2 x 3, 1 x 2 cells, with padding


def build(num_levels, kernel_size=3, **kwargs):
    options = dict(embed_dims=DIMS, num_layers=2, feedforward_channels=12, dropout=0.0, **kwargs)
    return build_part("SMCAConvEncoder", num_levels=num_levels, kernel_size=kernel_size, **options)


def memory_of(num_levels, image_sizes=ODD):
    return make_memory(image_sizes, STRIDES[num_levels], DIMS)


def layer_by_hand(layer, memory, kernel_size, share):
    """One layer, convolutions from its state dict: each level gets messages from its neighbours."""
    weights = layer.state_dict()

    def convolve(x, name, stride=1):
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        depthwise = weight.shape[1] == 1
        padding = kernel_size // 2 if depthwise else 0
        return F.conv2d(x, weight, bias, stride, padding, groups=DIMS if depthwise else 1)

    located = (memory.tokens + memory.pos).split(memory.level_sizes, dim=1)
    own = []
    for level, (tokens, (h, w)) in enumerate(zip(located, memory.spatial_shapes, strict=True)):
        maps = tokens.transpose(1, 2).reshape(-1, DIMS, h, w)
        own.append(convolve(convolve(maps, "in_proj"), f"within.{level}"))
    mixed = []
    for level in range(memory.num_levels):
        total = own[level].clone()
        if level >= 1:  # the finer neighbour
            pair = 0 if share else level - 1
            total += convolve(own[level - 1], f"down.{pair}", stride=2)
        if level + 1 < memory.num_levels:  # the coarser one
            pair = 0 if share else level
            total += F.interpolate(
                convolve(own[level + 1], f"up.{pair}"),
                size=memory.spatial_shapes[level],
                mode="bilinear",
                align_corners=True,
            )
        mixed.append(convolve(total, "out_proj").flatten(2).transpose(1, 2))
    tokens = layer.norm1(memory.tokens + torch.cat(mixed, dim=1))
    hidden = layer.ffn.linear1(tokens).relu()
    return memory.with_tokens(layer.norm2(tokens + layer.ffn.linear2(hidden)))


@pytest.mark.parametrize("image_sizes", [EVEN, ODD], ids=["even", "odd"])
@pytest.mark.parametrize("share", [True, False], ids=["shared", "per pair"])
@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("num_levels", STRIDES)
def test_equals_functional(num_levels, kernel_size, share, image_sizes):
    encoder = build(num_levels, kernel_size=kernel_size, share_cross_level=share).double()
    memory = in_double(memory_of(num_levels, image_sizes))
    expected = memory
    for layer in encoder.layers:
        expected = layer_by_hand(layer, expected, kernel_size, share)
    encoded = encoder(memory)
    assert_near(encoded.tokens, expected.tokens, torch.float64)
    assert encoded.pos is memory.pos
    assert encoded.spatial_shapes == memory.spatial_shapes


@pytest.mark.parametrize("image_sizes", [EVEN, ODD], ids=["not padded", "padded"])
@pytest.mark.parametrize("num_levels", [2, 4])
def test_reduce_first_puts_the_first_level_on_the_grid_of_the_second(num_levels, image_sizes):
    encoder = build(num_levels, reduce_first=True).double()
    plain = build(num_levels).double()
    plain.load_state_dict(encoder.state_dict(), strict=False)
    memory = in_double(memory_of(num_levels, image_sizes))
    unreduced, encoded = plain(memory), encoder(memory)

    assert encoded.spatial_shapes == (memory.spatial_shapes[1], *memory.spatial_shapes[1:])
    finest = F.conv2d(
        unreduced.maps()[0], encoder.reduce.weight, encoder.reduce.bias, stride=2, padding=1
    )
    assert_near(encoded.maps()[0], finest, torch.float64)
    second = memory.level(1)
    first = encoded.level(0)
    assert torch.equal(first.pos, second.pos)
    assert torch.equal(first.valid_ratios, second.valid_ratios)
    assert (first.padding_mask is None) == (image_sizes == EVEN)
    if image_sizes == ODD:
        assert torch.equal(first.padding_mask, second.padding_mask)
    for index in range(1, num_levels):
        level, expected = encoded.level(index), unreduced.level(index)
        assert_near(level.tokens, expected.tokens, torch.float64)
        assert torch.equal(level.pos, expected.pos)
        assert torch.equal(level.valid_ratios, expected.valid_ratios)
        if image_sizes == ODD:
            assert torch.equal(level.padding_mask, expected.padding_mask)


@pytest.mark.parametrize("ignored", [False, True])
def test_padding_can_be_ignored(ignored):
    """By default padding is read, as in the official code; sizes here are odd."""
    encoder, memory = build(4, reduce_first=True, ignore_padding=ignored), memory_of(4)
    found, other = encoder(memory), encoder(with_other_padding(memory))
    valid = ~found.padding_mask
    assert torch.equal(found.tokens[valid], other.tokens[valid]) == ignored


@pytest.mark.parametrize("reduce_first", [False, True])
def test_with_padding_ignored_an_image_is_the_same_as_alone(reduce_first):
    encoder = build(4, reduce_first=reduce_first, ignore_padding=True).double()
    memory = in_double(memory_of(4, ((128, 192), (64, 128))))
    encoded = encoder(memory)
    for image, (h, w) in enumerate([(16, 24), (8, 16)]):
        part = slice(image, image + 1)
        sizes = [(h // shrink, w // shrink) for shrink in (1, 2, 4, 8)]
        maps, pos = (
            [x[part, :, :h, :w] for x, (h, w) in zip(m.maps(), sizes, strict=True)]
            for m in (memory, memory.with_tokens(memory.pos))
        )
        alone = encoder(Memory.from_maps(maps, pos, torch.ones(1, 4, 2)))
        valid = ~encoded.padding_mask[image]
        assert_near(alone.tokens[0], encoded.tokens[image, valid], torch.float64)
