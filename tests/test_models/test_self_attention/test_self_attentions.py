"""Self-attention among queries: both kinds against the same thing written with torch's own."""

from dataclasses import replace

import torch
from mmdet.registry import MODELS
from support.memories import make_queries
from support.models import EMBED_DIMS, NUM_HEADS, randomise
from support.tolerances import assert_near
from torch import nn


def build(kind, **kwargs):
    torch.manual_seed(0)
    config = dict(type=kind, embed_dims=EMBED_DIMS, num_heads=NUM_HEADS, dropout=0.0)
    return randomise(MODELS.build(config | kwargs))


def torch_attention(query, key, value, out_proj):
    """Multi-head attention with identity projections, so that only the core is torch's."""
    core = nn.MultiheadAttention(EMBED_DIMS, NUM_HEADS, bias=False, batch_first=True)
    core.in_proj_weight.data = torch.eye(EMBED_DIMS).repeat(3, 1)
    core.out_proj.weight.data = torch.eye(EMBED_DIMS)
    return out_proj(core(query, key, value, need_weights=False)[0])


def test_plain_equals_torch():
    attention, queries = build("MultiheadSelfAttention"), make_queries()
    theirs = nn.MultiheadAttention(EMBED_DIMS, NUM_HEADS, batch_first=True)
    theirs.in_proj_weight.data = attention.in_proj.proj.weight.data
    theirs.in_proj_bias.data = attention.in_proj.proj.bias.data
    theirs.out_proj.load_state_dict(attention.out_proj.state_dict())
    located = queries.content + queries.pos
    expected, _ = theirs(located, located, queries.content)
    assert_near(attention(queries), expected)


def test_plain_works_without_positions():
    attention, queries = build("MultiheadSelfAttention"), make_queries()
    without = attention(replace(queries, pos=None))
    assert_near(without, attention(replace(queries, pos=torch.zeros_like(queries.pos))))


def test_conditional_sums_content_and_position():
    attention, queries = build("ConditionalSelfAttention"), make_queries()
    content, pos = queries.content, queries.pos
    expected = torch_attention(
        attention.q_content_proj(content) + attention.q_pos_proj(pos),
        attention.k_content_proj(content) + attention.k_pos_proj(pos),
        attention.v_proj(content),
        attention.out_proj,
    )
    assert_near(attention(queries), expected)
