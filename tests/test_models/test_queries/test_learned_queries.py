"""Learned queries and learned boxes: variants and errors."""

import pytest
import torch
from mmdet.registry import MODELS
from support.memories import make_memory
from support.models import EMBED_DIMS, NUM_QUERIES, randomise
from support.tolerances import assert_near

from fastdetr_mmdet.models.parts import Field


def build(type="LearnedQueries", **kwargs):
    torch.manual_seed(0)
    config = dict(type=type, embed_dims=EMBED_DIMS, num_queries=NUM_QUERIES)
    return randomise(MODELS.build(config | kwargs))


@pytest.mark.parametrize("content", ["zero", "learned"])
@pytest.mark.parametrize("reference", ["none", "mlp", "linear"])
def test_queries_are_the_same_for_every_image(content, reference):
    part = build(content=content, reference=reference)
    queries, proposals = part(make_memory())
    assert proposals is None
    shape = (2, NUM_QUERIES, EMBED_DIMS)
    assert queries.content.shape == queries.pos.shape == shape
    assert torch.equal(queries.pos[0], part.pos.weight)
    assert torch.equal(queries.pos[0], queries.pos[1])
    if content == "zero":
        assert not queries.content.any()
    else:
        assert torch.equal(queries.content[1], part.content.weight)
    if reference == "none":
        assert part.makes == set()
        assert queries.reference is None
        assert queries.reference_logits is None
    else:
        assert part.makes == {Field.POINT}
        assert_near(queries.reference_logits[1], part.reference(part.pos.weight))
        assert_near(queries.reference, queries.reference_logits.sigmoid())


@pytest.mark.parametrize("reference", ["mlp", "linear"])
def test_references_are_learned_through_the_positions(reference):
    part = build(reference=reference)
    part(make_memory())[0].reference.sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in part.parameters())


@pytest.mark.parametrize(
    "option", [dict(num_queries=0), dict(content="one"), dict(reference="box")]
)
def test_refuses(option):
    ((key, value),) = option.items()
    with pytest.raises(ValueError, match=f"{key}={value!r}"):
        build(**option)


def test_boxes_are_the_same_for_every_image():
    part = build("LearnedBoxQueries")
    queries, proposals = part(make_memory())
    assert proposals is None
    assert part.makes == {Field.BOX}
    assert queries.reference_logits.shape == (2, NUM_QUERIES, 4)
    for image in range(2):
        assert torch.equal(queries.reference_logits[image], part.reference.weight)
    assert_near(queries.reference, queries.reference_logits.sigmoid())


@pytest.mark.parametrize("embed_dims, num_queries", [(EMBED_DIMS, NUM_QUERIES), (8, 1)])
def test_content_starts_at_zero_and_there_is_no_position(embed_dims, num_queries):
    part = build("LearnedBoxQueries", embed_dims=embed_dims, num_queries=num_queries)
    queries, _ = part(make_memory())
    assert queries.content.shape == (2, num_queries, embed_dims)
    assert not queries.content.any()
    assert queries.pos is None
    assert [name for name, _ in part.named_parameters()] == ["reference.weight"]


def test_boxes_are_learned():
    part = build("LearnedBoxQueries")
    part(make_memory())[0].reference.sum().backward()
    slope = part.reference.weight.sigmoid() * (1 - part.reference.weight.sigmoid())
    assert_near(part.reference.weight.grad, 2 * slope)  # of both images
