"""SAM-DETR's cross-attention against loops, and against keys copied for every head."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from support.by_hand import attend_by_hand
from support.memories import in_double, make_memory, make_queries
from support.models import build_part
from support.tolerances import assert_near

from fastdetr_mmdet.ops.dropout import Dropout
from fastdetr_mmdet.structures import SalientPoints

DIMS, HEADS, QUERIES = 8, 2, 5
PADDED = ((32, 48), (24, 32))
NOT_PADDED = ((32, 48), (32, 48))


build = partial(build_part, "SAMAttention", embed_dims=DIMS, num_heads=HEADS)


def make_inputs(image_sizes=PADDED, strides=(8,)):
    salient = SalientPoints(
        content=torch.randn(2, QUERIES, HEADS, DIMS),
        pos=torch.randn(2, QUERIES, HEADS, DIMS),
        points=torch.rand(2, QUERIES, HEADS, 2),
    )
    queries = make_queries(2, QUERIES, DIMS, reference_dims=4).with_salient(salient)
    return queries, make_memory(image_sizes, strides, DIMS)


def make_prior(memory, heads=HEADS):
    return 3 * torch.randn(2, heads, QUERIES, memory.tokens.shape[1])


def project(attention, queries, memory):
    """Queries per head, keys, values: (bs, tokens[, num_heads], dims)."""
    content, pos = queries.salient.content, queries.salient.pos
    query = attention.q_content_proj(content) + attention.q_pos_proj(pos)
    key = attention.k_content_proj(memory.tokens) + attention.k_pos_proj(memory.pos)
    return query, key, attention.v_proj(memory.tokens)


@pytest.mark.parametrize("image_sizes", [PADDED, NOT_PADDED], ids=["padded", "not padded"])
@pytest.mark.parametrize("strides", [(8,), (8, 16)], ids=["one level", "two"])
@pytest.mark.parametrize("prior", ["no prior", "one for all heads", "per head"])
@torch.no_grad()
def test_equals_loops(prior, strides, image_sizes):
    """Heads have queries as wide as the shared keys, and split the values."""
    attention = build(dropout=0.0).double()
    queries, memory = (in_double(x) for x in make_inputs(image_sizes, strides))
    heads = {"no prior": 0, "one for all heads": 1, "per head": HEADS}[prior]
    scores = make_prior(memory, heads).double() if heads else None
    query, key, value = project(attention, queries, memory)
    expected = attend_by_hand(
        query,
        torch.stack([key] * HEADS, dim=2),
        value.unflatten(-1, (HEADS, -1)),
        scale=DIMS**-0.5,
        padding=memory.padding_mask,
        bias=None if scores is None else scores.expand(-1, HEADS, -1, -1),
    )
    assert_near(attention(queries, memory, scores), attention.out_proj(expected), torch.float64)


@torch.no_grad()
def test_without_an_aligner_all_heads_ask_with_the_query_itself():
    attention = build(dropout=0.0).double()
    queries, memory = (in_double(x) for x in make_inputs())
    content, pos = (torch.stack([x] * HEADS, dim=2) for x in (queries.content, queries.pos))
    copied = queries.with_salient(replace(queries.salient, content=content, pos=pos))
    prior = make_prior(memory).double()
    for scores in (None, prior):
        output = attention(replace(queries, salient=None), memory, scores)
        assert_near(output, attention(copied, memory, scores), torch.float64)


@torch.no_grad()
def test_dropout_of_the_weights_in_training_only():
    attention, inputs = build(dropout=0.5), make_inputs()
    plain = attention.eval()(*inputs)
    assert torch.equal(attention(*inputs), plain)

    query, key, value = project(attention, *inputs)
    scores = torch.einsum("bqhd,bkd->bhqk", query, key) * DIMS**-0.5
    scores = scores.masked_fill(inputs[1].padding_mask[:, None, None], -torch.inf)
    torch.manual_seed(1)
    weights = Dropout(0.5)(scores.softmax(-1))
    attended = torch.einsum("bhqk,bkhd->bqhd", weights, value.unflatten(-1, (HEADS, -1)))
    torch.manual_seed(1)
    output = attention.train()(*inputs)
    assert_near(output, attention.out_proj(attended.flatten(2)))
    assert not torch.allclose(output, plain)
