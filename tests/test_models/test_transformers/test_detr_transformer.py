"""The composition: any encoder or none, any queries, any decoder, or a refusal at build time."""

import pytest
import torch
from mmdet.registry import MODELS
from support.memories import make_memory
from support.models import EMBED_DIMS, NUM_CLASSES, NUM_HEADS, NUM_QUERIES, randomise, tiny_config
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


@pytest.mark.parametrize("encoder", [ENCODER, None], ids=["dense", "none"])
@pytest.mark.parametrize("strides", [(8,), (8, 16, 32)])
@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("decoder", ["DetrDecoder", "ConditionalDecoder"])
@pytest.mark.parametrize("queries", QUERIES)
def test_every_mix_works_or_is_refused(queries, decoder, refine, strides, encoder):
    decoder = dict(type=decoder, refine=refine)
    if queries == "none" and (refine or decoder["type"] == "ConditionalDecoder"):
        with pytest.raises(ValueError, match="needs reference points, but LearnedQueries makes no"):
            build(QUERIES[queries], decoder, encoder)
        return
    transformer = build(QUERIES[queries], decoder, encoder)
    boxes = nn.ModuleList(nn.Linear(EMBED_DIMS, 4) for _ in range(2))
    proposals = nn.Linear(EMBED_DIMS, NUM_CLASSES), nn.Linear(EMBED_DIMS, 4)
    output = transformer(make_memory(strides=strides), boxes, proposals)
    assert output.hidden_states.shape == (2, 2, NUM_QUERIES, EMBED_DIMS)
    assert torch.isfinite(output.hidden_states).all()
    assert (output.proposals is not None) == (queries == "two stage")
    assert (output.reference_logits is None) == (queries == "none")
    output.hidden_states.square().sum().backward()
    without = {name for name, p in transformer.named_parameters() if p.grad is None}
    # only a head's loss teaches proposals, and references that no layer looks at
    allowed = {"queries.reference", "queries.memory_"}
    assert [name for name in without if not name.startswith(tuple(allowed))] == []


def test_without_encoder_the_feature_maps_go_to_the_decoder():
    transformer = build(QUERIES["mlp"], dict(type="ConditionalDecoder"), encoder=None)
    memory = make_memory()
    seen = []
    transformer.decoder.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    transformer(memory)
    assert seen[0].tokens is memory.tokens


@pytest.mark.parametrize(
    "decoder, what",
    [
        (dict(type="ConditionalDecoder"), "ConditionalDecoder needs reference points"),
        (dict(type="DetrDecoder", refine=True), "DetrDecoder with refine=True needs reference"),
    ],
)
def test_refuses_queries_without_references(decoder, what):
    with pytest.raises(ValueError, match=what) as error:
        build(QUERIES["none"], decoder)
    assert "set reference='mlp' in transformer.queries" in str(error.value)


@pytest.mark.parametrize("embed_dims", [33, 34])
def test_refuses_widths_that_sines_cannot_fill(embed_dims):
    with pytest.raises(ValueError, match=f"embed_dims={embed_dims} is not divisible by 4"):
        build(QUERIES["mlp"], dict(type="DetrDecoder"), embed_dims=embed_dims)


def test_widths_reach_every_part():
    transformer = build(
        QUERIES["mlp"], dict(type="ConditionalDecoder"), encoder=ENCODER, embed_dims=64
    )
    widths = {p.shape[-1] for n, p in transformer.named_parameters() if "norm" in n}
    assert widths == {64}


@pytest.mark.parametrize(
    "overrides, named",
    [
        (
            dict(transformer__decoder__aligner=dict(type="SAMAttention")),
            r"decoder\.aligner .*SAMAttention",
        ),
        (
            dict(transformer__decoder__spatial_prior=dict(type="SAMSemanticAligner")),
            r"decoder\.spatial_prior .*SAMSemanticAligner",
        ),
        (
            dict(transformer__decoder__self_attn=dict(type="SAMAttention")),
            r"decoder\.self_attn .*SAMAttention",
        ),
        (dict(transformer__queries=None), "queries"),
    ],
)
def test_refuses_a_part_in_the_slot_of_another(overrides, named):
    with pytest.raises(ValueError, match=named):
        MODELS.build(tiny_config(**overrides))
