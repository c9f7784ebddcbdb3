"""Learned queries and learned boxes: variants and errors."""

import pytest
import torch
from support.memories import make_memory
from support.models import NUM_QUERIES, build_part
from support.tolerances import assert_near

from fastdetr_mmdet.models.parts import Field


def build(type="LearnedQueries", num_queries=NUM_QUERIES, **kwargs):
    return build_part(type, num_queries=num_queries, **kwargs)


@pytest.mark.parametrize("content", ["zero", "learned"])
@pytest.mark.parametrize("reference", ["none", "mlp", "linear"])
def test_queries_are_the_same_for_every_image(content, reference):
    part = build(content=content, reference=reference)
    queries, proposals = part(make_memory())
    assert proposals is None
    learned = torch.zeros_like(part.pos.weight) if content == "zero" else part.content.weight
    logits = None if reference == "none" else part.reference(part.pos.weight)
    assert part.makes == (set() if logits is None else {Field.POINT})
    for image in range(2):
        assert torch.equal(queries.pos[image], part.pos.weight)
        assert torch.equal(queries.content[image], learned)
        if logits is not None:
            assert_near(queries.reference_logits[image], logits)
    if logits is None:
        assert queries.reference is queries.reference_logits is None
    else:
        assert_near(queries.reference, queries.reference_logits.sigmoid())


def test_boxes_are_the_same_for_every_image():
    """The content starts at zero, and there is no position."""
    part = build("LearnedBoxQueries", embed_dims=8)
    queries, proposals = part(make_memory())
    assert proposals is None and queries.pos is None
    assert part.makes == {Field.BOX}
    assert [name for name, _ in part.named_parameters()] == ["reference.weight"]
    assert queries.content.shape == (2, NUM_QUERIES, 8) and not queries.content.any()
    for image in range(2):
        assert torch.equal(queries.reference_logits[image], part.reference.weight)
    assert_near(queries.reference, queries.reference_logits.sigmoid())
