"""Transformers with any encoder or none, queries and decoder; with and without level embedding."""

from dataclasses import replace

import pytest
import torch
from mmdet.registry import MODELS
from support.memories import make_memory
from support.models import EMBED_DIMS, NUM_CLASSES, NUM_HEADS, NUM_QUERIES, randomise
from support.tolerances import assert_near
from torch import nn

LAYER = dict(num_heads=NUM_HEADS, feedforward_channels=48, dropout=0.0)
ENCODER = dict(type="DetrEncoder", num_layers=1, **LAYER)
LEARNED = dict(type="LearnedQueries", num_queries=NUM_QUERIES)
QUERIES = {
    "none": dict(LEARNED, reference="none"),
    "mlp": dict(LEARNED, reference="mlp"),
    "linear": dict(LEARNED, reference="linear", content="learned"),
    "two stage": dict(type="TwoStageQueries", num_queries=NUM_QUERIES),
}


def build(queries, decoder, encoder=ENCODER, **kwargs):
    torch.manual_seed(0)
    decoder = dict(LAYER, num_layers=2) | decoder
    config = dict(
        type="DetrTransformer",
        embed_dims=EMBED_DIMS,
        encoder=encoder,
        queries=queries,
        decoder=decoder,
    )
    return randomise(MODELS.build(config | kwargs))


@pytest.mark.parametrize("queries", QUERIES)
def test_queries_reach_the_decoder(queries):
    decoder = dict(type="DetrDecoder", refine=queries != "none")
    transformer = build(QUERIES[queries], decoder)
    boxes = nn.ModuleList(nn.Linear(EMBED_DIMS, 4) for _ in range(2))
    proposals = nn.Linear(EMBED_DIMS, NUM_CLASSES), nn.Linear(EMBED_DIMS, 4)
    output = transformer(make_memory(strides=(8, 16, 32)), boxes, proposals)
    assert output.hidden_states.shape == (2, 2, NUM_QUERIES, EMBED_DIMS)
    assert (output.proposals is not None) == (queries == "two stage")
    assert (output.reference_logits is None) == (queries == "none")
    assert len(output.box_logits) == (0 if queries == "none" else 1)


def test_without_encoder_the_feature_maps_go_to_the_decoder():
    transformer = build(QUERIES["mlp"], dict(type="ConditionalDecoder"), encoder=None)
    memory = make_memory()
    seen = []
    transformer.decoder.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    transformer(memory)
    assert seen[0].tokens is memory.tokens


@pytest.mark.parametrize("embed_dims", [33, 34])
def test_refuses_widths_that_sines_cannot_fill(embed_dims):
    with pytest.raises(ValueError, match=f"embed_dims={embed_dims} is not divisible by 4"):
        build(QUERIES["mlp"], dict(type="DetrDecoder"), embed_dims=embed_dims)


LEVELS = {1: (8,), 3: (8, 16, 32)}  # strides


def embedding_levels(num_levels):
    """A transformer with level embedding, and a memory."""
    options = dict(type="DeformableDetrTransformer", num_levels=num_levels)
    transformer = build(QUERIES["mlp"], dict(type="ConditionalDecoder"), **options)
    return transformer, make_memory(strides=LEVELS[num_levels])


@pytest.mark.parametrize("num_levels", LEVELS)
def test_each_level_gets_its_own_vector(num_levels):
    """Also for a single level; added to positions, not to tokens."""
    transformer, memory = embedding_levels(num_levels)
    assert transformer.level_embed.shape == (num_levels, EMBED_DIMS)
    embedded = transformer.embed_levels(memory)
    assert replace(embedded, pos=memory.pos) == memory  # all else unchanged
    for level in range(num_levels):
        expected = memory.level(level).pos + transformer.level_embed[level]
        assert_near(embedded.level(level).pos, expected)


@pytest.mark.parametrize("num_levels", LEVELS)
def test_encoder_and_decoder_see_the_embedded_positions(num_levels):
    transformer, memory = embedding_levels(num_levels)
    plain = build(QUERIES["mlp"], dict(type="ConditionalDecoder"))
    weights = transformer.state_dict()
    weights.pop("level_embed")
    plain.load_state_dict(weights)
    expected = plain(transformer.embed_levels(memory)).hidden_states
    output = transformer(memory).hidden_states
    assert_near(output, expected)
    assert not torch.allclose(output, plain(memory).hidden_states)
