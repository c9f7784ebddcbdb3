"""Self-attention among queries: against torch's own, and Relation-DETR's against loops."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from support.by_hand import as_torch, attend_by_hand
from support.memories import in_double, make_queries
from support.models import NUM_HEADS, build_part
from support.tolerances import assert_near

build = partial(build_part, num_heads=NUM_HEADS, dropout=0.0)


@pytest.mark.parametrize("positions", [True, False])
def test_plain_equals_torch(positions):
    attention, queries = build("MultiheadSelfAttention"), make_queries()
    located = queries.content + queries.pos if positions else queries.content
    expected, _ = as_torch(attention)(located, located, queries.content)
    assert_near(attention(queries if positions else replace(queries, pos=None)), expected)


def test_conditional_sums_content_and_position():
    attention, queries = build("ConditionalSelfAttention").double(), in_double(make_queries())
    content, pos = queries.content, queries.pos
    query = attention.q_content_proj(content) + attention.q_pos_proj(pos)
    key = attention.k_content_proj(content) + attention.k_pos_proj(pos)
    heads = (x.unflatten(-1, (NUM_HEADS, -1)) for x in (query, key, attention.v_proj(content)))
    expected = attend_by_hand(*heads, scale=(content.shape[-1] / NUM_HEADS) ** -0.5)
    assert_near(attention(queries), attention.out_proj(expected), torch.float64)


def relation_by_hand(attention, before, now):
    """Relation-DETR, Sec. 4: bias of each head for each pair of boxes."""
    weights, biases = attention.relation_proj.weight.tolist(), attention.relation_proj.bias.tolist()
    bias = torch.empty(len(before), NUM_HEADS, before.shape[1], now.shape[1], dtype=torch.float64)
    for image, (first, second) in enumerate(zip(before.tolist(), now.tolist(), strict=True)):
        for i, (x, y, w, h) in enumerate(first):
            for j, (other_x, other_y, other_w, other_h) in enumerate(second):
                w, h, other_w, other_h = (max(s, 1e-300) for s in (w, h, other_w, other_h))
                entries = (
                    math.log(abs(x - other_x) / (w + 1e-5) + 1),
                    math.log(abs(y - other_y) / (h + 1e-5) + 1),
                    math.log((w + 1e-5) / (other_w + 1e-5)),
                    math.log((h + 1e-5) / (other_h + 1e-5)),
                )
                embedded = [
                    function(100 * entry / 10000 ** (2 * k / 16))
                    for entry in entries
                    for k in range(8)
                    for function in (math.sin, math.cos)
                ]
                for head in range(NUM_HEADS):
                    products = (a * b for a, b in zip(weights[head], embedded, strict=True))
                    bias[image, head, i, j] = max(0.0, sum(products) + biases[head])
    return bias


@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_relation_equals_loops(masked):
    """With groups, and a box without area."""
    attention = build("RelationSelfAttention", layer_index=1).double()
    queries = in_double(make_queries(reference_dims=4))
    before = torch.rand_like(queries.reference)
    before[0, 0, 2:] = 0.0
    bias = relation_by_hand(attention, before, queries.reference)
    assert bias.any() and not bias.all()
    sees = torch.ones(bias.shape[-2:], dtype=torch.bool)
    sees[3:, :2] = not masked
    given = replace(queries, previous_reference=before, attend_mask=sees if masked else None)
    projected = attention.in_proj(*[queries.content + queries.pos] * 2, queries.content)
    query, key, value = (x.unflatten(-1, (NUM_HEADS, -1)) for x in projected)
    attended = attend_by_hand(
        query, key, value, query.shape[-1] ** -0.5, bias=bias.masked_fill(~sees, -math.inf)
    )
    assert_near(attention(given), attention.out_proj(attended), torch.float64)


@pytest.mark.parametrize("limit", ["no weights", "equal boxes", "first layer"])
@torch.no_grad()
def test_relation_has_plain_attention_as_limit(limit):
    """If all pairs are equal, and in the first layer, which has no parameters for it."""
    relation = build("RelationSelfAttention", layer_index=int(limit != "first layer")).double()
    plain = build("MultiheadSelfAttention").double()
    plain.load_state_dict(relation.state_dict(), strict=limit == "first layer")
    queries = in_double(make_queries(reference_dims=4))
    given = replace(queries, previous_reference=torch.rand_like(queries.reference))
    if limit == "no weights":
        for parameter in relation.relation_proj.parameters():
            parameter.zero_()
    elif limit == "equal boxes":
        box = queries.reference[:, :1].expand_as(queries.reference)
        given = replace(queries, reference=box, previous_reference=box)
    assert_near(relation(given), plain(queries), torch.float64)


def test_relation_teaches_no_box_and_is_finite_at_half_precision():
    """Coordinates are embedded in float32; half-precision sines would be noise."""
    attention = build("RelationSelfAttention", layer_index=1)
    queries = make_queries(reference_dims=4)
    logits = (10 * queries.reference_logits).requires_grad_()
    given = replace(queries.with_reference(logits), previous_reference=logits.sigmoid())
    full = attention(given)
    full.sum().backward()
    assert logits.grad is None
    with torch.autocast("cpu", torch.bfloat16):
        assert_near(attention(given).float(), full, torch.bfloat16)
    half = replace(given, content=given.content.bfloat16(), pos=given.pos.bfloat16())
    assert_near(attention.bfloat16()(half).float(), full, torch.bfloat16)
