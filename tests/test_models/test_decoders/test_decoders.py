"""Decoders: refinement, level schedule, the slots for aligner and spatial prior."""

from dataclasses import replace

import pytest
import torch
from support.memories import make_memory, make_queries
from support.models import EMBED_DIMS, NUM_HEADS, NUM_QUERIES, build_part
from support.tolerances import assert_near
from torch import nn

from fastdetr_mmdet.models.layers.positions import sine_embedding

KINDS = ["DetrDecoder", "ConditionalDecoder"]
NUM_LAYERS = 3


def build(kind="ConditionalDecoder", num_layers=NUM_LAYERS, **kwargs):
    options = dict(num_heads=NUM_HEADS, feedforward_channels=48, dropout=0.0, **kwargs)
    return build_part(kind, num_layers=num_layers, **options)


def box_branches(seed=0):
    torch.manual_seed(seed)
    return nn.ModuleList(nn.Linear(EMBED_DIMS, 4) for _ in range(NUM_LAYERS))


def test_without_references_none_are_returned():
    queries = replace(make_queries(), reference=None, reference_logits=None)
    assert build("DetrDecoder")(queries, make_memory()).reference_logits is None


@pytest.mark.parametrize("reference_dims", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_refined_reference_is_the_previous_layers_box(kind, reference_dims):
    branches, queries = box_branches(), make_queries(reference_dims=reference_dims)
    output = build(kind, refine=True)(queries, make_memory(), branches)
    expected = queries.reference_logits
    for layer in range(NUM_LAYERS):
        assert_near(output.reference_logits[layer], expected)
        delta = branches[layer](output.hidden_states[layer])
        moved = torch.zeros_like(delta)
        moved[..., : expected.shape[-1]] = expected
        expected = delta + moved


def test_layers_know_the_reference_of_the_layer_before():
    seen = []
    decoder = build("DetrDecoder", refine=True)
    for layer in decoder.layers:
        layer.self_attn.register_forward_pre_hook(
            lambda _, args: seen.append(args[0].previous_reference)
        )
    output = decoder(make_queries(), make_memory(), box_branches())
    assert seen[0] is None
    for before, logits in zip(seen[1:], output.reference_logits[:-1], strict=True):
        assert torch.equal(before, logits.sigmoid())


@pytest.mark.parametrize("kind", KINDS)
def test_refinement_is_detached(kind):
    """Later layers do not train earlier layers' box branches; the first reference is learned."""
    branches, queries = box_branches(), make_queries()
    leaf = queries.reference_logits.clone().requires_grad_()
    output = build(kind, refine=True)(queries.with_reference(leaf), make_memory(), branches)
    assert not any(logits.requires_grad for logits in output.reference_logits[1:])
    output.hidden_states[-1].sum().backward()
    assert all(parameter.grad is None for parameter in branches.parameters())
    # with a conditional decoder the first layer's spatial query depends on the reference
    assert (leaf.grad is not None) == (kind == "ConditionalDecoder")
    assert output.reference_logits[0] is not None
    assert output.reference_logits[0].requires_grad


@pytest.mark.parametrize("refine", [False, True])
def test_spatial_query_is_scaled_by_the_content_before_the_norm(refine):
    """Conditional DETR, Eq. 3: p_q = T p_s, T = FFN(content of the previous layer).

    Each layer embeds the reference that enters it.
    """
    spatials, contents = [], []
    decoder = build(refine=refine)
    for layer in decoder.layers:
        layer.cross_attn.register_forward_pre_hook(
            lambda _, args: spatials.append(args[0].conditional.spatial)
        )
        layer.register_forward_hook(lambda _, __, output: contents.append(output[0]))
    output = decoder(make_queries(), make_memory(), box_branches())
    for index, spatial in enumerate(spatials):
        centre = output.reference_logits[index][..., :2].sigmoid()
        expected = sine_embedding(centre, EMBED_DIMS // 2)
        if index:
            expected = expected * decoder.query_scale(contents[index - 1])
        assert_near(spatial, expected)
        assert_near(output.hidden_states[index], decoder.norm(contents[index]))


@pytest.mark.parametrize("kind", KINDS)
def test_one_layer_has_no_parameter_that_never_learns(kind):
    decoder = build(kind, num_layers=1)
    decoder(make_queries(), make_memory()).hidden_states.square().sum().backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None] == []


def test_refining_without_box_branches_is_named():
    decoder = build("DetrDecoder", refine=True)
    with pytest.raises(ValueError, match="refine=True needs the head's box branches"):
        decoder(make_queries(), make_memory())


def test_level_schedule_shows_one_level_to_each_layer():
    memory = make_memory(strides=(8, 16, 32))
    decoder = build(level_schedule=(2, 1, 0))
    output = decoder(make_queries(), memory)
    for level in (0, 1):
        # a change reaches the layer of this level, but no earlier layer
        maps = memory.maps()
        maps[level] = maps[level] + 1
        tokens = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)
        other = decoder(make_queries(), memory.with_tokens(tokens)).hidden_states
        first = NUM_LAYERS - 1 - level
        assert torch.equal(output.hidden_states[:first], other[:first])
        assert not torch.allclose(output.hidden_states[first], other[first])


class Negative(nn.Module):
    """An aligner that changes the content."""

    def forward(self, queries, memory):
        return queries.with_content(-queries.content)


def test_prior_sees_the_layers_input_and_the_residual_passes_the_aligner_by():
    layer = build(spatial_prior=dict(type="GaussianPrior")).layers[0]
    layer.aligner = Negative()
    queries, memory = make_queries(), make_memory()
    seen = {}
    layer.spatial_prior.register_forward_pre_hook(lambda _, args: seen.update(prior=args[0]))
    layer.aligner.register_forward_pre_hook(lambda _, args: seen.update(aligner=args[0]))
    layer.cross_attn.register_forward_pre_hook(lambda _, args: seen.update(cross=args[0]))
    layer.cross_attn.register_forward_hook(lambda *_: torch.zeros(2, NUM_QUERIES, EMBED_DIMS))
    output, _ = layer(queries, memory)
    assert seen["prior"].content is queries.content
    after_self = layer.norm1(queries.content + layer.self_attn(queries))
    assert_near(seen["aligner"].content, after_self)
    assert_near(seen["cross"].content, -after_self)
    content = layer.norm2(after_self)
    assert_near(output, layer.norm3(content + layer.ffn(content)))


def test_positions_made_from_boxes_have_no_gradient():
    """SAM-DETR embeds box centres, also learned ones, without gradient."""
    logits = torch.randn(2, NUM_QUERIES, 4, requires_grad=True)
    queries = replace(make_queries(), pos=None).with_reference(logits)
    states = build("DetrDecoder", num_layers=1)(queries, make_memory()).hidden_states
    (gradient,) = torch.autograd.grad(states.square().mul(states).sum(), logits, allow_unused=True)
    assert gradient is None
