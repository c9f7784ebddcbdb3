"""Transformers without encoder, and with level embedding; test_product.py has all parts."""

from dataclasses import replace

import pytest
from support.memories import make_memory
from support.models import EMBED_DIMS, NUM_HEADS, build_part
from support.tolerances import assert_near

LAYER = dict(num_heads=NUM_HEADS, feedforward_channels=48, dropout=0.0)
ENCODER = dict(type="DetrEncoder", num_layers=1, **LAYER)
QUERIES = dict(type="LearnedQueries", reference="mlp")


def build(type="DetrTransformer", encoder=ENCODER, **kwargs):
    decoder = dict(LAYER, type="ConditionalDecoder", num_layers=2)
    return build_part(type, encoder=encoder, queries=QUERIES, decoder=decoder, **kwargs)


def test_without_encoder_the_feature_maps_go_to_the_decoder():
    transformer, memory = build(encoder=None), make_memory()
    seen = []
    transformer.decoder.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    transformer(memory)
    assert seen[0].tokens is memory.tokens


@pytest.mark.parametrize("embed_dims", [33, 34])
def test_refuses_widths_that_sines_cannot_fill(embed_dims):
    with pytest.raises(ValueError, match=f"embed_dims={embed_dims} is not divisible by 4"):
        build(embed_dims=embed_dims)


@pytest.mark.parametrize("num_levels", [1, 3])
def test_each_level_gets_its_own_vector(num_levels):
    """Also for a single level; added to positions, not to tokens."""
    transformer = build("DeformableDetrTransformer", num_levels=num_levels)
    memory = make_memory(strides=(8, 16, 32)[:num_levels])
    assert transformer.level_embed.shape == (num_levels, EMBED_DIMS)
    embedded = transformer.embed_levels(memory)
    assert replace(embedded, pos=memory.pos) == memory  # all else unchanged
    for level in range(num_levels):
        expected = memory.level(level).pos + transformer.level_embed[level]
        assert_near(embedded.level(level).pos, expected)
