"""Learned boxes: the same for every image, empty content, no position of their own."""

import pytest
import torch
from mmdet.registry import MODELS
from support.memories import make_memory
from support.models import EMBED_DIMS, NUM_QUERIES, randomise
from support.tolerances import assert_near

from fastdetr_mmdet.models.parts import Field


def build(**kwargs):
    torch.manual_seed(0)
    config = dict(type="LearnedBoxQueries", embed_dims=EMBED_DIMS, num_queries=NUM_QUERIES)
    return randomise(MODELS.build(config | kwargs))


def test_boxes_are_the_same_for_every_image():
    part = build()
    queries, proposals = part(make_memory())
    assert proposals is None
    assert part.makes == {Field.BOX}
    assert queries.reference_logits.shape == (2, NUM_QUERIES, 4)
    for image in range(2):
        assert torch.equal(queries.reference_logits[image], part.reference.weight)
    assert_near(queries.reference, queries.reference_logits.sigmoid())


@pytest.mark.parametrize("embed_dims, num_queries", [(EMBED_DIMS, NUM_QUERIES), (8, 1)])
def test_content_starts_at_zero_and_there_is_no_position(embed_dims, num_queries):
    part = build(embed_dims=embed_dims, num_queries=num_queries)
    queries, _ = part(make_memory())
    assert queries.content.shape == (2, num_queries, embed_dims)
    assert not queries.content.any()
    assert queries.pos is None
    assert [name for name, _ in part.named_parameters()] == ["reference.weight"]


def test_boxes_are_learned():
    part = build()
    part(make_memory())[0].reference.sum().backward()
    slope = part.reference.weight.sigmoid() * (1 - part.reference.weight.sigmoid())
    assert_near(part.reference.weight.grad, 2 * slope)  # of both images
