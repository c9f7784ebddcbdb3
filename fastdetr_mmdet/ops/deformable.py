"""Weighted sums of bilinear samples: mmcv's op on CUDA, sums of table rows on the CPU."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import sample_rows
from .eager import compiled_here, written_down
from .operators import HAS_OPERATORS, differentiable, operator
from .sample_rows import Shapes


def sample_and_sum(
    value: Tensor, spatial_shapes: Shapes, locations: Tensor, weights: Tensor
) -> Tensor:
    """Sum weighted bilinear samples of all levels (Deformable DETR, Eq. 3).

    Samples outside of a map are zero. Computed in float32 at least.

    Shape:
        value: (bs, num_tokens, num_heads, dims)
        locations: (bs, num_queries, num_heads, num_levels, num_points, 2), (x, y) in [0, 1]
        weights: (bs, num_queries, num_heads, num_levels, num_points)
        returns: (bs, num_queries, num_heads * dims), of the value's type
    """
    plain = written_down() and not (compiled_here() and HAS_OPERATORS)
    if value.device.type != "cuda":
        fits = value.device.type == "cpu" and sample_rows.fits(spatial_shapes, value.shape[2])
        plain = plain or not fits
    if plain:
        return sample_plain(value, spatial_shapes, locations, weights)
    return _sample(value, locations, weights, [side for pair in spatial_shapes for side in pair])


def sample_plain(
    value: Tensor, spatial_shapes: Shapes, locations: Tensor, weights: Tensor
) -> Tensor:
    """``sample_and_sum`` by ``grid_sample``: slower, but exporters support it."""
    bs, _, num_heads, _ = value.shape
    dtype = value.dtype
    value, locations, weights = _exact(value, locations, weights)
    grids = 2 * locations - 1
    weights = weights.permute(0, 2, 1, 3, 4).flatten(0, 1)  # (bs * heads, q, levels, points)
    output: Tensor | None = None
    sizes = [h * w for h, w in spatial_shapes]
    for level, (tokens, shape) in enumerate(
        zip(value.split(sizes, dim=1), spatial_shapes, strict=True)
    ):
        maps = tokens.permute(0, 2, 3, 1).flatten(0, 1).unflatten(-1, shape)
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)  # (bs * heads, q, points, 2)
        samples = F.grid_sample(maps, grid, padding_mode="zeros", align_corners=False)
        summed = (samples * weights[:, None, :, level]).sum(-1)  # (bs * heads, dims, q)
        output = summed if output is None else output + summed
    assert output is not None
    return output.unflatten(0, (bs, num_heads)).permute(0, 3, 1, 2).flatten(2).to(dtype)


def level_shapes(spatial_shapes: Shapes, device: torch.device) -> tuple[Tensor, Tensor]:
    """Size and first token of every level, on the device.

    Cached per image size, because all layers of every step use them.

    Shape:
        returns: (num_levels, 2) (h, w) and (num_levels,), both int64
    """
    return (
        _level_shapes(spatial_shapes, device) if written_down() else _known(spatial_shapes, device)
    )


def _level_shapes(spatial_shapes: Shapes, device: torch.device) -> tuple[Tensor, Tensor]:
    shapes = torch.tensor(spatial_shapes, dtype=torch.long)
    starts = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])
    return shapes.to(device, non_blocking=True), starts.to(device, non_blocking=True)


@lru_cache(maxsize=64)
def _known(spatial_shapes: Shapes, device: torch.device) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):  # inference tensors could not be used in training later
        return _level_shapes(spatial_shapes, device)


def _run(value: Tensor, locations: Tensor, weights: Tensor, sides: list[int]) -> Tensor:
    run = _on_cuda if value.is_cuda else sample_rows.sample
    return run(*_exact(value, locations, weights), _pairs(sides)).to(value.dtype)


def _run_back(
    value: Tensor, locations: Tensor, weights: Tensor, grad: Tensor, sides: list[int]
) -> tuple[Tensor, ...]:
    """Gradients of value, locations and weights."""
    run = _back_on_cuda if value.is_cuda else sample_rows.hand_back
    inputs = _exact(value, locations, weights)
    found = run(*inputs, grad.to(inputs[0].dtype), _pairs(sides))
    return tuple(x.to(y.dtype) for x, y in zip(found, (value, locations, weights), strict=True))


def _on_cuda(value: Tensor, locations: Tensor, weights: Tensor, shapes: Shapes) -> Tensor:
    from mmcv.ops.multi_scale_deform_attn import ext_module

    given = (value.contiguous(), *level_shapes(shapes, value.device))
    points = locations.contiguous(), weights.contiguous()
    # im2col_step must divide the number of images.
    return ext_module.ms_deform_attn_forward(*given, *points, im2col_step=len(value))


def _back_on_cuda(
    value: Tensor, locations: Tensor, weights: Tensor, grad: Tensor, shapes: Shapes
) -> tuple[Tensor, Tensor, Tensor]:
    from mmcv.ops.multi_scale_deform_attn import ext_module

    given = (value.contiguous(), *level_shapes(shapes, value.device))
    points = locations.contiguous(), weights.contiguous()
    by_value, by_location, by_weight = (torch.zeros_like(x) for x in (given[0], *points))
    found = by_value, by_location, by_weight
    ext_module.ms_deform_attn_backward(
        *given, *points, grad.contiguous(), *found, im2col_step=len(value)
    )
    return found


def _exact(value: Tensor, locations: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cast to float32, which coordinates need, or to float64 if locations are."""
    dtype = torch.float64 if locations.dtype == torch.float64 else torch.float32
    return value.to(dtype), locations.to(dtype), weights.to(dtype)


def _pairs(sides: list[int]) -> Shapes:
    return tuple(zip(sides[::2], sides[1::2], strict=True))


def _like_output(value: Tensor, locations: Tensor, weights: Tensor, sides: list[int]) -> Tensor:
    return value.new_empty(*weights.shape[:2], weights.shape[2] * value.shape[-1])


def _like_inputs(*inputs: Any) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in inputs[:3])


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.sides = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_sample_back(*ctx.saved_tensors, grad, ctx.sides), None


_GIVEN = "Tensor value, Tensor locations, Tensor weights"
_sample_back = operator(
    f"sample_and_sum_backward({_GIVEN}, Tensor grad, SymInt[] sides) -> (Tensor, Tensor, Tensor)",
    _run_back,
    _like_inputs,
)
_sample = differentiable(
    operator(f"sample_and_sum({_GIVEN}, SymInt[] sides) -> Tensor", _run, _like_output),
    _keep,
    _backward,
)
