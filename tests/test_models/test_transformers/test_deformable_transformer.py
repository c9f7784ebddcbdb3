"""The level embedding of Deformable DETR's transformer."""

from dataclasses import replace

import pytest
import torch
from mmdet.registry import MODELS
from support.memories import make_memory
from support.models import EMBED_DIMS, NUM_HEADS, NUM_QUERIES, randomise
from support.tolerances import assert_near

STRIDES = {1: (8,), 3: (8, 16, 32)}
LAYER = dict(num_heads=NUM_HEADS, feedforward_channels=48, dropout=0.0)


def build(num_levels, **kwargs):
    torch.manual_seed(0)
    config = dict(
        type="DeformableDetrTransformer",
        num_levels=num_levels,
        embed_dims=EMBED_DIMS,
        encoder=dict(type="DetrEncoder", num_layers=1, **LAYER),
        queries=dict(type="LearnedQueries", num_queries=NUM_QUERIES, reference="mlp"),
        decoder=dict(type="ConditionalDecoder", num_layers=2, **LAYER),
    )
    return randomise(MODELS.build(config | kwargs))


@pytest.mark.parametrize("num_levels", STRIDES)
def test_each_level_gets_its_own_vector(num_levels):
    """Also where there is only one; on the positions, not on the tokens."""
    transformer, memory = build(num_levels), make_memory(strides=STRIDES[num_levels])
    assert transformer.level_embed.shape == (num_levels, EMBED_DIMS)
    embedded = transformer.embed_levels(memory)
    assert replace(embedded, pos=memory.pos) == memory  # all else as it was
    for level in range(num_levels):
        expected = memory.level(level).pos + transformer.level_embed[level]
        assert_near(embedded.level(level).pos, expected)


@pytest.mark.parametrize("num_levels", STRIDES)
def test_is_a_detr_transformer_on_embedded_levels(num_levels):
    """Encoder and decoder both see the embedded positions."""
    transformer, memory = build(num_levels), make_memory(strides=STRIDES[num_levels])
    plain = MODELS.build(
        dict(
            type="DetrTransformer",
            embed_dims=EMBED_DIMS,
            encoder=dict(type="DetrEncoder", num_layers=1, **LAYER),
            queries=dict(type="LearnedQueries", num_queries=NUM_QUERIES, reference="mlp"),
            decoder=dict(type="ConditionalDecoder", num_layers=2, **LAYER),
        )
    )
    weights = transformer.state_dict()
    weights.pop("level_embed")
    plain.load_state_dict(weights)
    expected = plain(transformer.embed_levels(memory)).hidden_states
    output = transformer(memory).hidden_states
    assert_near(output, expected)
    assert not torch.allclose(output, plain(memory).hidden_states)
