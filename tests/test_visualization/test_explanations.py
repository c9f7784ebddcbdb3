"""Explanations of cross-attentions reproduce their outputs."""

import pytest
import torch
import torch.nn.functional as F
from support.mixes import MIXES, mix
from support.models import NUM_HEADS, make_batch
from support.tolerances import assert_near

from fastdetr_mmdet.models.layers import attend, attention_weights
from fastdetr_mmdet.visualization import record


def calls_with_outputs(model):
    """Recorded call and output of each layer, for a padded batch."""
    outputs = []
    for layer in model.transformer.decoder.layers:
        layer.cross_attn.register_forward_hook(lambda *call: outputs.append(call[-1]))
    with torch.no_grad(), record(model) as recording:
        model._forward(*make_batch())
    return list(zip(recording.layers, outputs, strict=True))


def values(part, memory):
    """Values projected by the part, (bs, num_heads, num_tokens, dims per head)."""
    dims = memory.tokens.shape[-1]
    if hasattr(part, "in_proj"):  # query, key and value in one matrix
        projection = part.in_proj.proj
        value = F.linear(memory.tokens, projection.weight[2 * dims :], projection.bias[2 * dims :])
    else:
        value = getattr(part, "v_proj", None) or part.value_proj
        value = value(memory.tokens)
    return value.unflatten(-1, (NUM_HEADS, -1)).transpose(1, 2)


def sampled(value, memory, points, weights):
    """The weighted sum of bilinear samples, (bs, num_heads, num_queries, dims per head)."""
    visible = ~memory.padding_mask[:, None, :, None]
    levels = (value * visible).split(memory.level_sizes, dim=2)
    summed = 0
    for level, (tokens, shape) in enumerate(zip(levels, memory.spatial_shapes, strict=True)):
        maps = tokens.transpose(2, 3).flatten(0, 1).unflatten(-1, shape)
        grid = 2 * points[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1
        found = F.grid_sample(maps, grid, align_corners=False).unflatten(0, value.shape[:2])
        summed = summed + (found * weights[:, :, :, level].transpose(1, 2).unsqueeze(2)).sum(-1)
    return summed.transpose(2, 3)


@pytest.mark.parametrize("name", MIXES)
@torch.no_grad()
def test_shown_weights_times_values_are_the_output(name):
    pairs = calls_with_outputs(mix(name))
    assert len(pairs) >= 2
    for call, output in pairs:
        shown, memory = call.explain(), call.memory
        assert memory.padding_mask is not None and memory.padding_mask.any()
        value = values(call.part, memory)
        if shown.points is None:
            assert shown.weights.shape == (2, NUM_HEADS, 10, memory.tokens.shape[1])
            read = shown.weights @ value
            total = shown.weights.sum(-1)
        else:
            assert shown.weights is None
            read = sampled(value, memory, shown.points, shown.point_weights)
            total = shown.point_weights.sum((-1, -2))
        assert_near(call.part.out_proj(read.transpose(1, 2).flatten(2)), output)
        assert_near(total, torch.ones_like(total))
        if shown.weights is not None:
            padding = memory.padding_mask[:, None, None].expand_as(shown.weights)
            assert not shown.weights[padding].any()


@torch.no_grad()
def test_scale_selection_is_the_share_of_each_level():
    for call, _ in calls_with_outputs(mix("smca on three levels")):
        shown = call.explain()
        shares = [w.sum(-1) for w in shown.weights.split(call.memory.level_sizes, dim=-1)]
        expected = shown.level_weights.unsqueeze(1).expand(-1, NUM_HEADS, -1, -1)
        assert_near(torch.stack(shares, -1), expected)
        assert shown.level_weights.std(-1).min() > 1e-4  # not uniform


@pytest.mark.parametrize("bias", ["none", "mask", "prior"])
def test_readable_attention_equals_the_fast_one(bias):
    query, key, value = torch.randn(2, 5, 24), torch.randn(2, 7, 24), torch.randn(2, 7, 12)
    mask, prior = torch.rand(2, 1, 1, 7) > 0.4, torch.randn(2, 3, 5, 7)
    added = dict(none=None, mask=mask, prior=prior)[bias]
    read = attention_weights(query, key, 3, added) @ value.unflatten(-1, (3, -1)).transpose(1, 2)
    assert_near(read.transpose(1, 2).flatten(2), attend(query, key, value, 3, added))
