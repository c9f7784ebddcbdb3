"""Dense cross-attentions: priors and formulas."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from support.by_hand import as_torch, attend_by_hand
from support.memories import in_double, make_memory, make_queries
from support.models import EMBED_DIMS, NUM_HEADS, NUM_QUERIES, build_part
from support.tolerances import assert_near

from fastdetr_mmdet.models.layers import attention_bias

KINDS = ["MultiheadCrossAttention", "ConditionalAttention"]


build = partial(build_part, num_heads=NUM_HEADS, dropout=0.0)


@pytest.mark.parametrize("layer_index", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_prior_is_added_to_the_scores(kind, layer_index):
    """A constant changes nothing, -inf masks, other priors change the output."""
    attention = build(kind, layer_index=layer_index)
    queries, memory = make_queries(), make_memory(((32, 48), (32, 48)))
    tokens = memory.tokens.shape[1]
    output = attention(queries, memory)
    constant = torch.full((2, NUM_HEADS, NUM_QUERIES, tokens), 3.0)
    assert_near(attention(queries, memory, constant), output)
    assert not torch.allclose(attention(queries, memory, torch.randn_like(constant)), output)

    masked = torch.rand(2, tokens) > 0.5
    prior = torch.zeros(2, 1, NUM_QUERIES, tokens)
    prior = prior.masked_fill(masked[:, None, None], -torch.inf)
    as_padding = replace(memory, padding_mask=masked)
    assert_near(attention(queries, memory, prior), attention(queries, as_padding))


def test_plain_equals_torch():
    attention, queries, memory = build("MultiheadCrossAttention"), make_queries(), make_memory()
    expected, _ = as_torch(attention)(
        queries.content + queries.pos,
        memory.tokens + memory.pos,
        memory.tokens,
        key_padding_mask=memory.padding_mask,
    )
    assert_near(attention(queries, memory), expected)


@pytest.mark.parametrize("layer_index", [0, 1])
def test_conditional_equals_equation_2(layer_index):
    """Per head c_q . c_k + p_q . p_k, scaled by the joint width (arXiv 2108.06152)."""
    attention = build("ConditionalAttention", layer_index=layer_index).double()
    queries, memory = in_double(make_queries()), in_double(make_memory())
    c_q = attention.q_content_proj(queries.content)
    c_k = attention.k_content_proj(memory.tokens)
    p_q = attention.q_spatial_proj(queries.conditional.spatial)
    p_k = attention.k_pos_proj(memory.pos)
    if layer_index == 0:
        c_q = c_q + attention.q_pos_proj(queries.pos)
        c_k = c_k + p_k
    heads = (c_q, c_k, attention.v_proj(memory.tokens), p_q, p_k)
    c_q, c_k, value, p_q, p_k = (x.unflatten(-1, (NUM_HEADS, -1)) for x in heads)
    scale = (2 * EMBED_DIMS / NUM_HEADS) ** -0.5
    spatial = scale * torch.einsum("bqhd,bkhd->bhqk", p_q, p_k)
    outputs = attend_by_hand(c_q, c_k, value, scale, memory.padding_mask, spatial)
    assert_near(attention(queries, memory), attention.out_proj(outputs), torch.float64)


def test_bias_is_nothing_when_there_is_nothing():
    prior = torch.randn(2, 4, 3, 5)
    mask = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    mask[1, ..., 3:] = False
    assert attention_bias(None, None) is None
    assert attention_bias(mask, None) is mask
    assert attention_bias(None, prior) is prior
    both = attention_bias(mask, prior)
    assert torch.equal(both[0], prior[0])
    assert torch.equal(both[1, ..., :3], prior[1, ..., :3])
    assert (both[1, ..., 3:] == -torch.inf).all()
