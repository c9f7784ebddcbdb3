"""RT-DETR's encoder against a functional implementation in float64."""

import pytest
import torch
from support.memories import in_double, make_memory
from support.models import build_part
from support.tolerances import assert_near
from torch.nn import functional as F

from fastdetr_mmdet.structures import Memory

DIMS = 8
STRIDES = {1: (8,), 2: (8, 16), 3: (8, 16, 32)}
EVEN = ((128, 192), (64, 128))  # 16 x 24 and 8 x 16 cells, whole ones on every level
ODD = ((56, 88), (24, 56))  # 7 x 11 and 3 x 7 cells, 4 x 6 and 2 x 4, 2 x 3 and 1 x 2


def build(num_levels, **kwargs):
    options = dict(embed_dims=DIMS, num_heads=2, feedforward_channels=12, depth=2, **kwargs)
    return build_part("HybridEncoder", num_levels=num_levels, **options).double().eval()


def encode_by_hand(encoder, memory):
    """Encode image by image, without padding, from the state dict."""
    weights = encoder.state_dict()

    def norm(x, name):
        centred = x - x.mean(1, keepdim=True)
        x = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        return x * weights[f"{name}.weight"].view(-1, 1, 1) + weights[f"{name}.bias"].view(-1, 1, 1)

    def project(x, name, act=True):
        x = torch.einsum("dc,nchw->ndhw", weights[f"{name}.0.weight"], x)
        x = norm(x + weights[f"{name}.0.bias"].view(-1, 1, 1), f"{name}.1")
        return x * x.sigmoid() if act else x

    def convolve(x, name, stride=1):
        x = F.conv2d(x, weights[f"{name}.conv.weight"], weights[f"{name}.conv.bias"], stride, 1)
        x = norm(x, f"{name}.norm")
        return x * x.sigmoid()

    def fuse(one, other, name):
        both = torch.cat([one, other], dim=1)
        x = project(both, f"{name}.main")
        for index in range(2):
            x = convolve(x, f"{name}.convs.{index}")
        x = x + project(both, f"{name}.short")
        return project(x, f"{name}.out") if f"{name}.out.0.weight" in weights else x

    results = []
    for image, sizes in enumerate(zip(*memory.valid_shapes, strict=True)):
        maps, pos = (
            [x[image : image + 1, :, :h, :w] for x, (h, w) in zip(m.maps(), sizes, strict=True)]
            for m in (memory, memory.with_tokens(memory.pos))
        )
        tokens = maps[-1].flatten(2).transpose(1, 2)
        for layer in encoder.layers:
            tokens = layer(tokens, pos[-1].flatten(2).transpose(1, 2), None)
        maps[-1] = tokens.transpose(1, 2).unflatten(2, sizes[-1])
        last = len(maps) - 1
        for level in range(last, 0, -1):
            maps[level] = project(maps[level], f"lateral.{level - 1}")
            h, w = sizes[level - 1]
            twice = maps[level].repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :h, :w]
            maps[level - 1] = fuse(twice, maps[level - 1], f"top_down.{level - 1}")
        for level in range(last):
            told = convolve(maps[level], f"down.{level}", stride=2)
            maps[level + 1] = fuse(told, maps[level + 1], f"bottom_up.{level}")
        made = [project(x, f"out_proj.{level}", act=False) for level, x in enumerate(maps)]
        results.append(torch.cat([x.flatten(2).transpose(1, 2) for x in made], dim=1)[0])
    return results


@pytest.mark.parametrize("image_sizes", [EVEN, ODD], ids=["even", "odd"])
@pytest.mark.parametrize("num_levels", STRIDES)
@pytest.mark.parametrize("expansion", [1.0, 0.5])
@torch.no_grad()
def test_equals_functions_on_each_image_alone(expansion, num_levels, image_sizes):
    encoder = build(num_levels, expansion=expansion, num_layers=2)
    memory = in_double(make_memory(image_sizes, STRIDES[num_levels], DIMS))
    encoded = encoder(memory)
    for image, expected in enumerate(encode_by_hand(encoder, memory)):
        valid = ~memory.padding_mask[image]
        assert_near(encoded.tokens[image, valid], expected, torch.float64)
    assert encoded.pos is memory.pos and encoded.spatial_shapes == memory.spatial_shapes


def test_levels_that_are_not_halves_are_resized():
    """As from a backbone whose strides round down, or a dilated one."""
    maps = [torch.randn(1, DIMS, h, w).double() for h, w in ((9, 13), (4, 6), (4, 6))]
    encoder = build(3)
    encoded = encoder(Memory.from_maps(maps, maps, torch.ones(1, 3, 2)))
    assert encoded.tokens.shape == (1, 9 * 13 + 2 * 4 * 6, DIMS)
    assert torch.isfinite(encoded.tokens).all()
