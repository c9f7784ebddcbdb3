"""SMCA's co-attention with scale selection (Eq. 6, 8 and 9) against loops."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from support.by_hand import attend_by_hand, softmax_by_hand
from support.memories import in_double, make_memory, make_queries
from support.models import build_part
from support.tolerances import assert_near

from fastdetr_mmdet.models.parts import Field
from fastdetr_mmdet.structures import SalientPoints

DIMS, HEADS, QUERIES = 8, 2, 5
STRIDES = {1: (8,), 3: (8, 16, 32)}
PADDED = ((32, 48), (24, 32))
NOT_PADDED = ((32, 48), (32, 48))


def build(num_levels):
    """With enough noise for queries to select different scales."""
    options = dict(embed_dims=DIMS, num_heads=HEADS, num_levels=num_levels, dropout=0.0)
    return build_part("SMCAAttention", scale=0.5, **options)


def make_inputs(num_levels, image_sizes=PADDED):
    queries = make_queries(2, QUERIES, DIMS)
    queries = replace(queries, embedded=torch.randn(2, QUERIES, DIMS))
    return queries, make_memory(image_sizes, STRIDES[num_levels], DIMS)


def make_prior(memory, heads=HEADS):
    return 3 * torch.randn(2, heads, QUERIES, memory.tokens.shape[1])


def inputs_per_head(queries, memory):
    """Query, key and value inputs: (bs, tokens, num_heads, dims)."""
    given = (queries.content + queries.pos, memory.tokens + memory.pos, memory.tokens)
    query, key, value = (torch.stack([x] * HEADS, dim=2) for x in given)
    salient = queries.salient
    return query if salient is None else salient.content + salient.pos, key, value


@torch.no_grad()
def by_hand(attention, queries, memory, prior):
    weights, biases = attention.in_proj.proj.weight.chunk(3), attention.in_proj.proj.bias.chunk(3)
    query, key, value = (
        torch.stack(
            [
                F.linear(x[:, :, head], weight.chunk(HEADS)[head], bias.chunk(HEADS)[head])
                for head in range(HEADS)
            ],
            dim=2,
        )
        for x, weight, bias in zip(inputs_per_head(queries, memory), weights, biases, strict=True)
    )
    selection = select_by_hand(attention, queries, memory.num_levels)
    total = torch.zeros_like(queries.content)
    for level, own in enumerate(memory.level_slices):
        found = attend_by_hand(
            query,
            key[:, own],
            value[:, own],
            scale=(DIMS / HEADS) ** -0.5,
            padding=None if memory.padding_mask is None else memory.padding_mask[:, own],
            bias=None if prior is None else prior.expand(-1, HEADS, -1, -1)[..., own],
        )
        for image in range(2):
            for q in range(QUERIES):
                total[image, q] += selection[image][q][level] * found[image, q]
    return attention.out_proj(total)


def select_by_hand(attention, queries, num_levels):
    """Per image and query one weight per level."""
    if num_levels == 1:
        return [[[1.0]] * QUERIES] * 2
    logits = attention.scale_selection(queries.embedded).tolist()
    return [[softmax_by_hand(query) for query in image] for image in logits]


@pytest.mark.parametrize("image_sizes", [PADDED, NOT_PADDED], ids=["padded", "not padded"])
@pytest.mark.parametrize("prior", ["no prior", "one for all heads", "per head"])
@pytest.mark.parametrize("num_levels", [1, 3])
def test_equals_loops(num_levels, prior, image_sizes):
    attention = build(num_levels).double()
    queries, memory = (in_double(x) for x in make_inputs(num_levels, image_sizes))
    heads = {"no prior": 0, "one for all heads": 1, "per head": HEADS}[prior]
    scores = make_prior(memory, heads).double() if heads else None
    output = attention(queries, memory, scores)
    assert_near(output, by_hand(attention, queries, memory, scores), torch.float64)


@pytest.mark.parametrize("num_levels", [1, 3])
def test_with_an_aligner_every_head_asks_at_its_salient_point(num_levels):
    attention = build(num_levels).double()
    queries, memory = make_inputs(num_levels)
    shape = (2, QUERIES, HEADS, DIMS)
    salient = SalientPoints(torch.randn(shape), torch.randn(shape), torch.rand(*shape[:3], 2))
    queries, memory = in_double(queries.with_salient(salient)), in_double(memory)
    output = attention(queries, memory)
    assert_near(output, by_hand(attention, queries, memory, None), torch.float64)


def test_one_level_has_nothing_to_select():
    assert build(1).scale_selection is None
    assert Field.EMBEDDED not in build(1).reads  # so the layer has no norm for it
    assert Field.EMBEDDED in build(3).reads
