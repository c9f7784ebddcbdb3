"""Sampling for deformable attention: the CPU's own path against grid_sample."""

import pytest
import torch
from support.tolerances import assert_near

from fastdetr_mmdet.ops import deformable
from fastdetr_mmdet.ops.deformable import level_shapes, sample_and_sum, sample_plain

SHAPES = ((7, 11), (4, 6), (1, 3))
TOKENS = sum(h * w for h, w in SHAPES)


def make_inputs(bs=2, queries=23, heads=4, dims=5, points=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    sampled = (bs, queries, heads, len(SHAPES), points)
    value = torch.randn(bs, TOKENS, heads, dims, generator=generator, dtype=dtype)
    # a good part of them outside of the maps
    locations = torch.rand(*sampled, 2, generator=generator, dtype=dtype) * 1.6 - 0.3
    weights = torch.randn(*sampled, generator=generator, dtype=dtype)
    return [x.requires_grad_() for x in (value, locations, weights)]


@pytest.mark.parametrize("chunk", [1024, 10, 1], ids=lambda chunk: f"chunks of {chunk}")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_equals_grid_sample(monkeypatch, chunk, dtype):
    monkeypatch.setattr(deformable, "_CHUNK", chunk)
    inputs = make_inputs(dtype=dtype)
    results = []
    for function in (sample_and_sum, sample_plain):
        output = function(inputs[0], SHAPES, *inputs[1:])
        gradients = torch.autograd.grad(output.square().sum(), inputs)
        results.append((output, *gradients))
    for ours, expected in zip(*results, strict=True):
        assert_near(ours, expected, dtype, rtol=1e-8 if dtype == torch.float64 else 1e-3)


def test_keeps_nothing_of_the_size_of_the_samples():
    value, locations, weights = make_inputs(dtype=torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        sample_and_sum(value, SHAPES, locations, weights)
    largest = max(value.numel(), locations.numel())
    assert kept and max(x.numel() for x in kept) <= largest


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_a_bad_location_shows_and_does_no_harm(bad):
    """Its query's output is not finite, or zero where the location is merely far outside."""
    value, locations, weights = (x.detach() for x in make_inputs(dtype=torch.float32))
    clean = sample_and_sum(value, SHAPES, locations, weights)
    locations[0, 3, 0, 0, 0, 0] = bad
    output = sample_and_sum(value, SHAPES, locations, weights)
    assert torch.isnan(output[0, 3]).any() == (bad != 1e30)
    others = torch.ones(2, 23, dtype=torch.bool)
    others[0, 3] = False
    assert torch.equal(output[others], clean[others])


def test_export_gets_operators_that_exporters_know(monkeypatch):
    inputs = [x.detach().float() for x in make_inputs()]
    called = []
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    monkeypatch.setattr(deformable, "sample_plain", lambda *args: called.append(args))
    sample_and_sum(inputs[0], SHAPES, *inputs[1:])
    assert len(called) == 1


def test_traced_models_can_be_saved(tmp_path):
    value, locations, weights = (x.detach().float() for x in make_inputs())

    def function(v, x, w):
        return sample_and_sum(v, SHAPES, x, w)

    traced = torch.jit.trace(function, (value, locations, weights))
    traced.save(str(tmp_path / "traced.pt"))
    found = torch.jit.load(str(tmp_path / "traced.pt"))(value, locations, weights)
    assert_near(found, function(value, locations, weights))


def test_level_shapes_are_made_once_and_fit_for_gradients():
    device = torch.device("cpu")
    with torch.inference_mode():
        first = level_shapes(((7, 3), (2, 2)), device)
    again = level_shapes(((7, 3), (2, 2)), device)
    assert all(a is b and not a.is_inference() for a, b in zip(first, again, strict=True))
    assert again[0].tolist() == [[7, 3], [2, 2]] and again[1].tolist() == [0, 21]
