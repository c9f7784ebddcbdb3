"""RoIAlign: mmcv's op on CUDA, matrix products on the CPU, ONNX's operator in export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from mmcv.ops import roi_align
from mmcv.ops.roi_align import ext_module
from torch import Tensor

from .eager import compiled_here, on_plain_cpu
from .operators import differentiable, operator

# Regions per chunk on the CPU, so that intermediate results stay a few megabytes.
_REGIONS = 64

# Per thread, because another thread may predict while one exports.
_for_onnx: ContextVar[bool] = ContextVar("_for_onnx", default=False)


@contextmanager
def regions_in_onnx() -> Iterator[None]:
    """Context in which ``align_regions`` traces to ONNX's operator.

    Not the default under torch.export, because without ONNX the operator returns zeros.
    """
    before = _for_onnx.set(True)
    try:
        yield
    finally:
        _for_onnx.reset(before)


def align_regions(features: Tensor, boxes: Tensor, size: int) -> Tensor:
    """RoIAlign (``aligned``) with as many bilinear samples per cell as it has pixels.

    Shape:
        features: (bs, dims, h, w)
        boxes: (bs, num_regions, 4), x1, y1, x2, y2 in cells; they get no gradient
        returns: (bs * num_regions, dims, size, size), of the features' type
    """
    # torch.compile cannot read a context variable
    for_onnx = not compiled_here() and _for_onnx.get()
    if on_plain_cpu(features) and not for_onnx:
        return _align_by_products(features, boxes.detach(), size)
    image = torch.arange(boxes.shape[0], device=boxes.device, dtype=boxes.dtype)
    image = image[:, None, None].expand(-1, boxes.shape[1], 1)
    rois = torch.cat([image, boxes], dim=-1).flatten(0, 1)  # (num_rois, 5)
    if for_onnx:
        return _align_in_onnx(features, rois, size)
    return _align(features, rois, size)


def _align_by_products(features: Tensor, boxes: Tensor, size: int) -> Tensor:
    """RoIAlign as matrix products: row weights x features x column weights.

    On the CPU mmcv's op loops over samples on one thread.
    """
    h, w = features.shape[2:]
    rows = _shares(boxes[..., 1], boxes[..., 3], h, size)
    columns = _shares(boxes[..., 0], boxes[..., 2], w, size)
    regions = []
    with torch.autocast("cpu", enabled=False):
        for image, across, down in zip(features.permute(0, 2, 3, 1), columns, rows, strict=True):
            by_row = image.flatten(1)  # (h, w * dims)
            for some_down, some_across in zip(
                down.split(_REGIONS), across.split(_REGIONS), strict=True
            ):
                cut = (some_down.flatten(0, 1) @ by_row).view(-1, size, *image.shape[1:])
                regions.append(some_across[:, None] @ cut)  # (regions, size, size, dims)
    return torch.cat(regions).permute(0, 3, 1, 2)


def _shares(start: Tensor, end: Tensor, length: int, size: int) -> Tensor:
    """Weight of every cell of a map in every cell of a region, along one axis.

    Shape:
        start, end: (bs, num_regions), in cells of the map
        returns: (bs, num_regions, size, length)
    """
    start = start - 0.5
    extent = (end - 0.5) - start
    count = (extent / size).ceil().nan_to_num(0.0, 0.0, 0.0).clamp(min=0)  # samples in a cell
    start, extent, count = (x[..., None, None] for x in (start, extent, count))
    cell = torch.arange(size, dtype=start.dtype)[:, None]
    sample = torch.arange(max(int(count.max()), 1) if count.numel() else 1, dtype=start.dtype)
    step = extent / size
    position = start + cell * step + (sample + 0.5) * step / count.clamp(min=1)
    inside = (sample < count) & (position >= -1) & (position <= length)
    # Let NaN in a box reach the output.
    weight = inside / count.clamp(min=1) + extent * 0
    position = position.nan_to_num(0.0).clamp(0, length - 1)
    low = position.long()
    beyond = position - low
    shares = start.new_zeros(*start.shape[:2], size, length)
    shares.scatter_add_(-1, low, weight * (1 - beyond))
    return shares.scatter_add_(-1, (low + 1).clamp(max=length - 1), weight * beyond)


def _align_in_onnx(features: Tensor, rois: Tensor, size: int) -> Tensor:
    """RoIAlign as ONNX's operator of opset 16, whose ``half_pixel`` is ``aligned``."""
    return torch.onnx.ops.symbolic(
        "RoiAlign",
        (features, rois[:, 1:], rois[:, 0].long()),
        dict(
            coordinate_transformation_mode="half_pixel",
            mode="avg",
            output_height=size,
            output_width=size,
            sampling_ratio=0,
            spatial_scale=1.0,
        ),
        dtype=features.dtype,
        shape=(rois.shape[0], features.shape[1], size, size),
        version=16,
    )


def _run(features: Tensor, rois: Tensor, size: int) -> Tensor:
    maps, rois = (x.to(_exact_type(features)).contiguous() for x in (features, rois))
    return roi_align(maps, rois, size, 1.0, 0, "avg", True).to(features.dtype)


def _run_back(grad: Tensor, rois: Tensor, shape: list[int], size: int) -> Tensor:
    exact = _exact_type(grad)
    features, nothing = grad.new_zeros(shape, dtype=exact), grad.new_zeros(0, dtype=exact)
    ext_module.roi_align_backward(
        grad.to(exact).contiguous(),
        rois.to(exact).contiguous(),
        nothing,
        nothing,
        features,
        aligned_height=size,
        aligned_width=size,
        spatial_scale=1.0,
        sampling_ratio=0,
        pool_mode=1,  # mean
        aligned=True,
    )
    return features.to(grad.dtype)


def _exact_type(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    features, rois, ctx.size = inputs
    ctx.save_for_backward(rois)
    ctx.shape = features.shape


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    return _align_back(grad, *ctx.saved_tensors, list(ctx.shape), ctx.size), None, None


_align_back = operator(
    "align_regions_backward(Tensor grad, Tensor rois, SymInt[] shape, SymInt size) -> Tensor",
    _run_back,
    lambda grad, rois, shape, size: grad.new_empty(shape),
)
_align = differentiable(
    operator(
        "align_regions(Tensor features, Tensor rois, SymInt size) -> Tensor",
        _run,
        lambda features, rois, size: features.new_empty(len(rois), features.shape[1], size, size),
    ),
    _keep,
    _backward,
)
