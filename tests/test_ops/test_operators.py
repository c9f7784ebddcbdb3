"""Sampling and RoIAlign as torch operators, for compilers and exporters."""

import importlib

import pytest
import torch
from support.models import make_batch, tiny_model
from support.tolerances import assert_near
from support.versions import needs_operators

from fastdetr_mmdet.ops import deformable, eager, operators, roi
from fastdetr_mmdet.ops.deformable import sample_plain

SHAPES = ((5, 7), (2, 3))
SIDES = [5, 7, 2, 3]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def sampled(dtype, points=torch.float32):
    """Arguments of sampling; heads before tokens in memory, which results must not inherit."""
    value = torch.randn(2, 4, 41, 6).to(dtype).transpose(1, 2)
    locations = (torch.rand(2, 9, 4, 2, 3, 2) * 1.4 - 0.2).to(points)
    return value, locations, torch.rand(2, 9, 4, 2, 3).to(points), SIDES


def regions(dtype):
    """Arguments of RoIAlign, maps channels last."""
    maps = torch.randn(2, 3, 8, 9).to(dtype, memory_format=torch.channels_last)
    image, corner = torch.arange(5)[:, None] % 2, torch.rand(5, 2) * 5
    return maps, torch.cat([image, corner, corner + torch.rand(5, 2) * 4], 1), 3


def trained(args, count):
    """The first arguments, which get a gradient."""
    return *(x.detach().requires_grad_() for x in args[:count]), *args[count:]


QUICK = [("all", torch.float32), ("all", torch.bfloat16), ("regions", torch.float16)]


@needs_operators
@pytest.mark.parametrize(
    "of, dtype",
    [
        pytest.param(of, dtype, marks=[] if (of, dtype) in QUICK else pytest.mark.slow)
        for of in ("values", "all", "regions")
        for dtype in DTYPES
    ],
    ids=str,
)
def test_opcheck(of, dtype):
    """Schema, autograd, shapes without data, and compiled with static and free shapes."""
    if of == "regions":
        maps, rois, size = regions(dtype)
        grad = torch.randn(5, 3, 3, 3).to(dtype)
        calls = [
            (roi._align, trained((maps, rois, size), 1)),
            (roi._align_back, (grad, rois, list(maps.shape), size)),
        ]
    else:
        args = sampled(dtype, torch.float32 if of == "values" else dtype)
        grad = torch.randn(2, 24, 9).to(dtype).transpose(1, 2)
        calls = [
            (deformable._sample, trained(args, 3)),
            (deformable._sample_back, (*args[:3], grad, SIDES)),
        ]
    for op, args in calls:
        torch.library.opcheck(op, args)


@pytest.mark.parametrize("dtype", DTYPES[1:3], ids=str)
@pytest.mark.parametrize("of", ["sampling", "regions"])
def test_float32_inside(of, dtype):
    """Results and gradients are computed in float32 and rounded once to the input's type."""
    op, args, count = (
        (deformable._sample, sampled(dtype, dtype), 3)
        if of == "sampling"
        else (roi._align, regions(dtype), 1)
    )
    results = []
    for exact in (False, True):
        given = [x.float() if exact else x for x in args[:count]]
        given = trained((*given, *args[count:]), count)
        output = op(*given)
        grad = torch.linspace(-1, 1, output.numel()).view(output.shape).to(dtype)
        found = torch.autograd.grad(output, given[:count], grad.to(output.dtype))
        results.append([output, *found])
    for low, exact in zip(*results, strict=True):
        assert low.dtype == dtype
        assert torch.equal(low, exact.to(dtype))


def test_before_torch_2_4(monkeypatch):
    """The same function and gradient without operators."""
    monkeypatch.setattr(operators, "HAS_OPERATORS", False)
    assert operators.operator("x(Tensor x) -> Tensor", abs, abs) is abs
    monkeypatch.setattr(deformable, "_sample_back", deformable._run_back)
    sample = operators.differentiable(deformable._run, deformable._keep, deformable._backward)
    args = trained(sampled(torch.float64, torch.float64), 3)
    results = []
    for output in (sample(*args), sample_plain(args[0], SHAPES, *args[1:3])):
        results.append([output, *torch.autograd.grad(output.square().sum(), args[:3])])
    for ours, expected in zip(*results, strict=True):
        assert_near(ours, expected, torch.float64, rtol=1e-8)


def test_what_torch_2_1_lacks_is_not_needed(monkeypatch):
    monkeypatch.delattr(torch.nn.Module, "register_load_state_dict_pre_hook", raising=False)
    assert tiny_model().predict(*make_batch())  # the detector and its queries register hooks
    with monkeypatch.context() as patch:
        patch.setattr("torch._dynamo.external_utils.is_compiling", lambda: False)
        patch.delattr(torch.compiler, "is_compiling", raising=False)
        assert not importlib.reload(eager).written_down()
    importlib.reload(eager)


@needs_operators
def test_cuda_goes_by_the_operators():
    """Also eager calls: gradients of tensors without data have the right shapes and types."""
    with torch._subclasses.FakeTensorMode():
        value, *points = (
            torch.empty(x.shape, dtype=x.dtype, device="cuda") for x in sampled(torch.half)[:3]
        )
        output = deformable.sample_and_sum(value, SHAPES, *points)
        maps, rois = (torch.empty(x.shape, device="cuda") for x in regions(torch.half)[:2])
        cut = roi._align(maps, rois, 3)
    assert (output.shape, output.dtype, output.is_cuda) == ((2, 9, 24), torch.half, True)
    assert (cut.shape, cut.is_cuda) == ((5, 3, 3, 3), True)
