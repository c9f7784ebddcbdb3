"""SMCA's Gaussian prior against its formula, written as loops over heads, queries and cells."""

import itertools
from dataclasses import replace

import pytest
import torch
from support.by_hand import gaussian_by_hand
from support.memories import make_memory, make_queries
from support.models import build_part
from support.tolerances import assert_near

from fastdetr_mmdet.models.parts import Field

DIMS, HEADS, QUERIES = 12, 3, 5
STRIDES = {1: (8,), 3: (8, 16, 32)}
PADDED = ((44, 62), (30, 41))  # no multiples of a stride: pixels and valid ratios differ
VALUES = {"fixed": 0, "single": 1, "independent": 2, "correlated": 3}  # predicted per head
OPTIONS = [
    dict(),
    dict(cell_offset=0.0),
    dict(smooth=3.0),
    dict(strides=True),
    dict(strides=True, cell_offset=0.0, unit=16),
]


def build(num_levels=1, strides=False, **kwargs):
    options = dict(embed_dims=DIMS, num_heads=HEADS, num_levels=num_levels, **kwargs)
    strides = STRIDES[num_levels] if strides else None
    return build_part("GaussianPrior", strides=strides, **options)


def make_inputs(num_levels=1, reference_dims=2, image_sizes=PADDED):
    queries = make_queries(2, QUERIES, DIMS, reference_dims)
    queries = replace(queries, embedded=torch.randn(2, QUERIES, DIMS))
    return queries, make_memory(image_sizes, STRIDES[num_levels], DIMS)


def predict(linear, embedded, num_levels, values):
    """Output of a branch as [image][query][level][head][value]."""
    return linear(embedded).view(2, QUERIES, num_levels, HEADS, values).tolist()


@torch.no_grad()
def by_hand(
    prior, queries, memory, scale_type, strides=False, unit=None, cell_offset=0.5, smooth=8.0
):
    num_levels = memory.num_levels
    offsets = predict(prior.offset_branch, queries.embedded, num_levels, 2)
    scales = None
    if scale_type != "fixed":
        scales = predict(prior.scale_branch, queries.embedded, num_levels, VALUES[scale_type])
    scores = torch.zeros(2, HEADS, QUERIES, memory.tokens.shape[1])
    for image, head, query in itertools.product(range(2), range(HEADS), range(QUERIES)):
        reference = queries.reference[image, query].tolist()
        for level, own in enumerate(memory.level_slices):
            (h, w), stride = memory.spatial_shapes[level], STRIDES[num_levels][level]
            if strides:
                height, width = (pixels / stride for pixels in PADDED[image])
            else:
                share = memory.valid_ratios[image, level].tolist()
                height, width = share[1] * h, share[0] * w
            offset = offsets[image][query][level][head]
            centre = [reference[0] * width + offset[0], reference[1] * height + offset[1]]
            found = [1.0] if scales is None else scales[image][query][level][head]
            found = found * 2 if len(found) == 1 else found
            distance = gaussian_by_hand(centre, found, (h, w), cell_offset)
            distance = distance * (stride / unit if unit else 1.0)
            scores[image, head, query, own] = -distance / smooth
    return scores


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("num_levels", [1, 3])
@pytest.mark.parametrize("scale_type", VALUES)
def test_equals_loops(scale_type, num_levels, options):
    prior = build(num_levels, scale_type=scale_type, **options)
    queries, memory = make_inputs(num_levels, 2 if num_levels == 1 else 4)  # box: centre
    assert memory.padding_mask.any()
    scores = prior(queries, memory)
    assert scores.shape == (2, HEADS, QUERIES, memory.tokens.shape[1])
    assert (scores <= 0).all()
    assert_near(scores, by_hand(prior, queries, memory, scale_type, **options))


@pytest.mark.parametrize("scale_type", VALUES)
def test_all_scales_start_at_one(scale_type):
    """For any query."""
    prior, (queries, _) = build(scale=0.0, scale_type=scale_type), make_inputs()
    if scale_type == "fixed":
        assert prior.scale_branch is None
    else:
        predicted = prior.scale_branch(queries.embedded)
        assert predicted.shape[-1] == HEADS * VALUES[scale_type]
        assert torch.equal(predicted, torch.ones_like(predicted))


def test_first_layer_can_predict_the_references():
    """By a three-layer MLP of the embedded queries; later layers use them."""
    first, later = (build(predict_reference=True, layer_index=index) for index in (0, 1))
    assert Field.POINT in first.makes
    assert Field.POINT not in later.makes
    assert later.reference_branch is None
    queries, memory = make_inputs()
    queries = replace(queries, reference=None, reference_logits=None)
    located = first.locate(queries)
    assert len(first.reference_branch) == 5  # three linear layers
    logits = first.reference_branch(queries.embedded)
    assert_near(located.reference_logits, logits)
    assert_near(located.reference, logits.sigmoid())
    for prior in (first, later):
        assert_near(prior(located, memory), by_hand(prior, located, memory, "independent"))


@pytest.mark.parametrize("predict_reference", [True, False])
def test_gradient_reaches_all_parameters_and_the_queries(predict_reference):
    prior = build(3, predict_reference=predict_reference)
    queries, memory = make_inputs(3)
    embedded = queries.embedded.requires_grad_()
    logits = queries.reference_logits.requires_grad_()
    queries = prior.locate(queries) if predict_reference else queries.with_reference(logits)
    prior(queries, memory).exp().sum().backward()
    assert all(p.grad.any() for p in prior.parameters())
    assert embedded.grad.any(-1).all()
    assert predict_reference or logits.grad.all()


def test_coordinates_stay_in_float32():
    """In bfloat16 cell 301 is cell 302."""
    prior, (queries, _) = build(), make_inputs()
    memory = make_memory(((8, 8 * 320), (8, 8 * 320)), (8,), DIMS)
    half = replace(queries, embedded=queries.embedded.bfloat16())
    scores = prior.bfloat16()(half, memory)
    assert scores.dtype == torch.float32
    assert_near(scores, by_hand(prior, half, memory, "independent"))
