"""CPU implementations: sampling against grid_sample, RoIAlign against mmcv."""

import threading
import warnings
from types import SimpleNamespace

import pytest
import torch
from mmcv.ops import roi_align
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, ext_module
from support.tolerances import assert_near
from support.versions import needs_cuda_without_gpu, needs_operators

from fastdetr_mmdet.ops import align_regions, deformable, regions_in_onnx, sample_rows
from fastdetr_mmdet.ops.deformable import level_shapes, sample_and_sum, sample_plain

SHAPES = ((7, 11), (4, 6), (1, 3))
NAN = float("nan")
TOKENS = sum(h * w for h, w in SHAPES)


def make_inputs(bs=2, queries=23, heads=4, dims=5, points=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    sampled = (bs, queries, heads, len(SHAPES), points)
    value = torch.randn(bs, TOKENS, heads, dims, generator=generator, dtype=dtype)
    # many of them outside of the maps
    locations = torch.rand(*sampled, 2, generator=generator, dtype=dtype) * 1.6 - 0.3
    weights = torch.randn(*sampled, generator=generator, dtype=dtype)
    return [x.requires_grad_() for x in (value, locations, weights)]


@pytest.mark.parametrize("chunk", [1024, 10, 1], ids=lambda chunk: f"chunks of {chunk}")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_equals_grid_sample(monkeypatch, chunk, dtype):
    monkeypatch.setattr(sample_rows, "_CHUNK", chunk)
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
    """Its query's output is not finite, or zero for locations far outside."""
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


@needs_operators
def test_compiled_code_samples_by_the_same_op():
    """Not grid_sample, which keeps every sample."""
    inputs = [x.detach().requires_grad_() for x in make_inputs(dtype=torch.float32)]
    operators = []

    def backend(graph, _):
        operators.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    def function(value, locations, weights):
        return sample_and_sum(value, SHAPES, locations, weights)

    torch._dynamo.reset()
    compiled = torch.compile(function, backend=backend, fullgraph=True)
    results = []
    for call in (compiled, function):
        output = call(*inputs)
        results.append((output, *torch.autograd.grad(output.square().sum(), inputs)))
    assert "fastdetr_mmdet.sample_and_sum.default" in operators
    for found, expected in zip(*results, strict=True):
        assert torch.equal(found, expected)


@needs_cuda_without_gpu
def test_cuda_is_asked_as_mmcv_does(monkeypatch):
    """Arguments of mmcv's kernels, forward and backward, on tensors without data."""
    calls = []

    def kernel(name):
        def call(*args, im2col_step):
            calls.append((name, [(x.shape, x.dtype) for x in args], im2col_step))
            return args[0].new_empty(2, 23, 20)

        return call

    for name in ("ms_deform_attn_forward", "ms_deform_attn_backward"):
        monkeypatch.setattr(ext_module, name, kernel(name))
    monkeypatch.setattr(deformable, "_known", deformable._level_shapes)
    shapes = [x.shape for x in make_inputs()]
    with torch._subclasses.FakeTensorMode():
        inputs = [torch.empty(shape, device="cuda") for shape in shapes]
        sides = [side for shape in SHAPES for side in shape]
        grad = deformable._run(*inputs, sides)
        deformable._run_back(*inputs, grad, sides)
        value, *points = inputs
        given = (value, *level_shapes(SHAPES, value.device), *points)
        ctx = SimpleNamespace(save_for_backward=lambda *x: None, saved_tensors=given)
        MultiScaleDeformableAttnFunction.forward(ctx, *given, len(value))
        MultiScaleDeformableAttnFunction.backward(ctx, grad)
    assert len(calls) == 4 and calls[:2] == calls[2:]


def test_warnings_are_shown_once_all_the_same():
    """``catch_warnings`` in every step would reset the shown warnings."""
    value, locations, weights = make_inputs(dtype=torch.float32)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for _ in range(3):
            warnings.warn("as a training step may", UserWarning, stacklevel=1)
            sample_and_sum(value, SHAPES, locations, weights).sum().backward()
    assert [str(warning.message) for warning in shown] == ["as a training step may"]


def test_level_shapes_are_made_once_and_fit_for_gradients():
    device = torch.device("cpu")
    with torch.inference_mode():
        first = level_shapes(((7, 3), (2, 2)), device)
    again = level_shapes(((7, 3), (2, 2)), device)
    assert all(a is b and not a.is_inference() for a, b in zip(first, again, strict=True))
    assert again[0].tolist() == [[7, 3], [2, 2]] and again[1].tolist() == [0, 21]


@pytest.mark.parametrize("shape", [(15, 20), (5, 3), (31, 64)], ids=str)
def test_regions_are_mmcvs(shape):
    """Values and gradients of RoIAlign, for boxes of all sizes, partly and fully outside."""
    generator = torch.Generator().manual_seed(0)
    h, w = shape
    maps = torch.randn(2, 6, h, w, generator=generator, requires_grad=True)
    centres = torch.rand(2, 200, 2, generator=generator) * 1.6 - 0.3
    sides = torch.rand(2, 200, 2, generator=generator) ** 2
    sides[:, :3] = 0.0
    boxes = torch.cat([centres - sides / 2, centres + sides / 2], -1)
    boxes = boxes * torch.tensor([w, h, w, h], dtype=torch.float32)
    ours = align_regions(maps, boxes, 7)
    image = torch.arange(2.0)[:, None, None].expand(-1, 200, 1)
    rois = torch.cat([image, boxes], -1).flatten(0, 1)
    mmcvs = roi_align(maps, rois, 7, 1.0, 0, "avg", True)
    assert mmcvs.abs().amax((1, 2, 3)).gt(0).sum() > 100  # not all of them are outside
    torch.testing.assert_close(ours, mmcvs, atol=1e-5, rtol=1e-5)
    direction = torch.randn(mmcvs.shape, generator=generator)
    found, expected = (torch.autograd.grad((x * direction).sum(), maps)[0] for x in (ours, mmcvs))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_regions_of_broken_boxes():
    """NaN stays in its region; without boxes there are no regions."""
    maps, boxes = torch.ones(1, 2, 4, 4), torch.tensor([[[0.0, 0, 4, 4], [0, 0, NAN, 4]]])
    good, bad = align_regions(maps, boxes, 3)
    torch.testing.assert_close(good, torch.ones(2, 3, 3))
    assert bad.isnan().all()
    assert align_regions(maps, boxes[:, :0], 3).shape == (0, 2, 3, 3)


def test_exporting_is_each_threads_own():
    maps, boxes, found = torch.ones(1, 2, 4, 4), torch.tensor([[[0.0, 0, 4, 4]]]), []
    with regions_in_onnx():
        other = threading.Thread(target=lambda: found.append(align_regions(maps, boxes, 3)))
        other.start()
        other.join()
    torch.testing.assert_close(found[0], torch.ones(1, 2, 3, 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_that_of_the_result_only(dtype):
    value, locations, weights = (x.detach() for x in make_inputs(dtype=torch.float32))
    value = value.to(dtype)
    output = sample_and_sum(value, SHAPES, locations, weights)
    assert output.dtype == dtype
    exact = sample_and_sum(value.float(), SHAPES, locations, weights)
    assert torch.equal(output, exact.to(dtype))
