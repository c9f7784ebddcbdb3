"""The Gaussian prior at salient points against its formula, written as loops."""

import itertools
from functools import partial

import pytest
import torch
from support.by_hand import gaussian_by_hand
from support.memories import make_memory, make_queries
from support.models import build_part
from support.tolerances import assert_near

from fastdetr_mmdet.structures import SalientPoints

DIMS, HEADS, QUERIES = 12, 3, 5
PADDED = ((44, 62), (30, 41))
STRIDES = {1: (8,), 3: (8, 16, 32)}


build = partial(build_part, "SalientGaussianPrior", embed_dims=DIMS, num_heads=HEADS)


def make_inputs(num_levels=1, image_sizes=PADDED):
    """Inputs with points outside of the image and scales of both signs."""
    salient = SalientPoints(
        content=torch.randn(2, QUERIES, HEADS, DIMS),
        pos=torch.randn(2, QUERIES, HEADS, DIMS),
        points=torch.rand(2, QUERIES, HEADS, 2) * 1.4 - 0.2,
        scales=torch.randn(2, QUERIES, HEADS, 2),
    )
    queries = make_queries(2, QUERIES, DIMS, reference_dims=4).with_salient(salient)
    return queries, make_memory(image_sizes, STRIDES[num_levels], DIMS)


@pytest.mark.parametrize("options", [{}, dict(smooth=3.0)], ids=str)
@pytest.mark.parametrize("num_levels", [1, 3])
def test_equals_loops(num_levels, options):
    queries, memory = make_inputs(num_levels)
    expected = torch.zeros(2, HEADS, QUERIES, memory.tokens.shape[1])
    for image, head, query in itertools.product(range(2), range(HEADS), range(QUERIES)):
        x, y = queries.salient.points[image, query, head].tolist()
        scale = queries.salient.scales[image, query, head].tolist()
        for level, own in enumerate(memory.level_slices):
            (h, w), share = memory.spatial_shapes[level], memory.valid_ratios[image, level].tolist()
            centre = [x * share[0] * w, y * share[1] * h]
            expected[image, head, query, own] = -gaussian_by_hand(centre, scale, (h, w))
    scores = build(**options)(queries, memory)
    assert scores.dtype == torch.float32
    assert (scores <= 0).all()
    assert_near(scores, expected / options.get("smooth", 8.0))


def test_teaches_points_and_scales_and_has_nothing_to_learn_itself():
    queries, memory = make_inputs()
    points, scales = (x.requires_grad_() for x in (queries.salient.points, queries.salient.scales))
    build()(queries, memory).exp().sum().backward()
    assert points.grad.all()
    assert scales.grad.all()
    assert list(build().parameters()) == []
