"""Bilinear samples, weighted and summed: mmcv's op on CUDA, sums of rows on CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Shapes = tuple[tuple[int, int], ...]

# Queries per pass on the CPU: the corners of so many are a few megabytes and stay in the cache.
_CHUNK = 1024


def sample_and_sum(
    value: Tensor, spatial_shapes: Shapes, locations: Tensor, weights: Tensor
) -> Tensor:
    """Bilinear samples of all levels, weighted and summed (Deformable DETR, Eq. 3).

    Maps are zero outside. Computed in float32 whatever the value's type: coordinates need it.

    Shape:
        value: (bs, num_tokens, num_heads, dims)
        locations: (bs, num_queries, num_heads, num_levels, num_points, 2), (x, y) in [0, 1]
        weights: (bs, num_queries, num_heads, num_levels, num_points)
        returns: (bs, num_queries, num_heads * dims)
    """
    traced = (
        torch.onnx.is_in_onnx_export() or torch.compiler.is_compiling() or torch.jit.is_tracing()
    )
    # Row numbers of the CPU's way are exact below 2**24 in float32.
    too_many = value.shape[1] * value.shape[2] >= 2**24
    if traced or value.device.type not in ("cpu", "cuda") or (too_many and not value.is_cuda):
        return sample_plain(value, spatial_shapes, locations, weights)
    if value.is_cuda:
        return _sample_cuda(value, spatial_shapes, locations, weights)
    output = _SampleSparse.apply(value.to(locations.dtype), spatial_shapes, locations, weights)
    return output.to(value.dtype)


def sample_plain(
    value: Tensor, spatial_shapes: Shapes, locations: Tensor, weights: Tensor
) -> Tensor:
    """The same with ``grid_sample``: slower, but made of operators that exporters know."""
    bs, _, num_heads, _ = value.shape
    dtype = value.dtype
    value = value.to(locations.dtype)
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


def _sample_cuda(
    value: Tensor, spatial_shapes: Shapes, locations: Tensor, weights: Tensor
) -> Tensor:
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    shapes = torch.tensor(spatial_shapes, dtype=torch.long)
    starts = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])
    shapes, starts = (x.to(value.device, non_blocking=True) for x in (shapes, starts))
    # In float32: the op has no bfloat16, and its coordinates need the precision. The last argument,
    # how many images it takes at a time, has to divide their number.
    output = MultiScaleDeformableAttnFunction.apply(
        value.float(), shapes, starts, locations, weights, len(value)
    )
    return output.to(value.dtype)


class _Corners:
    """The four cells around every sample of some queries, and how much each counts.

    A query and head reads ``4 * num_levels * num_points`` rows of the image's (token, head) table.
    x and y lie apart and corners before levels, so that all arithmetic runs over contiguous memory.
    Row numbers are computed in the type of the locations: exact in float32 below 2**24 rows.
    """

    def __init__(self, locations: Tensor, spatial_shapes: Shapes) -> None:
        """``locations``: (num_queries, num_heads, num_levels, num_points, 2) of one image."""
        num_heads = locations.shape[1]
        # (2, 1, 1, num_levels, 1): x, y
        sizes = locations.new_tensor(
            [[w for _, w in spatial_shapes], [h for h, _ in spatial_shapes]]
        )
        self.sizes = sizes = sizes[:, None, None, :, None]
        pixels = (locations.movedim(-1, 0) * sizes).sub_(0.5)
        low = pixels.floor()
        share = pixels.sub_(low)  # of the higher cell
        last = sizes - 1
        inside_low = (low >= 0) & (low <= last)
        inside_high = (low >= -1) & (low < last)
        self.inside_low, self.inside_high = inside_low.to(low.dtype), inside_high.to(low.dtype)
        self.high = share * self.inside_high
        self.low = share.neg_().add_(1).mul_(self.inside_low)

        # Row of a cell: ((start + y * width) + x) * num_heads + head. Outside any row will do; also
        # where the location is NaN, which the share then hands on.
        levels = [h * w for h, w in spatial_shapes]
        starts = locations.new_tensor([0, *levels[:-1]]).cumsum(0)[:, None]
        heads = torch.arange(num_heads, dtype=low.dtype)[:, None, None]
        high_cell = (low + 1).masked_fill_(~inside_high, 0)
        cells = (low.masked_fill_(~inside_low, 0), high_cell)
        left, right = (cell[0].mul_(num_heads).add_(heads) for cell in cells)
        width = sizes[0] * num_heads
        top, bottom = (cell[1].mul_(width).add_(starts * num_heads) for cell in cells)
        rows = low.new_empty(*low.shape[1:3], 4, *low.shape[3:], dtype=torch.int32)
        for corner, (y, x) in enumerate(
            ((top, left), (top, right), (bottom, left), (bottom, right))
        ):
            rows[:, :, corner] = y + x
        self.rows = rows.flatten(2).flatten(0, 1)  # (bags, rows per bag)

    def shares(self) -> Tensor:
        """How much each corner counts, (num_queries, num_heads, 4, num_levels, num_points)."""
        (x0, y0), (x1, y1) = self.low, self.high
        shares = x0.new_empty(*x0.shape[:2], 4, *x0.shape[2:])
        for corner, (y, x) in enumerate(((y0, x0), (y0, x1), (y1, x0), (y1, x1))):
            torch.mul(y, x, out=shares[:, :, corner])
        return shares

    def location_gradient(self, by_share: Tensor) -> Tensor:
        """From the gradient by each corner's share to that by the location.

        Shape:
            by_share: (num_queries, num_heads, 4, num_levels, num_points)
            returns: (num_queries, num_heads, num_levels, num_points, 2)
        """
        (x0, y0), (x1, y1) = self.low, self.high
        (in_x0, in_y0), (in_x1, in_y1) = self.inside_low, self.inside_high
        g00, g01, g10, g11 = by_share.unbind(2)
        by_x = (y0 * g01).addcmul_(y1, g11).mul_(in_x1)
        by_x.sub_((y0 * g00).addcmul_(y1, g10).mul_(in_x0))
        by_y = (x0 * g10).addcmul_(x1, g11).mul_(in_y1)
        by_y.sub_((x0 * g00).addcmul_(x1, g01).mul_(in_y0))
        return torch.stack([by_x.mul_(self.sizes[0]), by_y.mul_(self.sizes[1])], dim=-1)


class _SampleSparse(torch.autograd.Function):
    """Every (query, head) sums a few rows of a table: ``embedding_bag``, never the samples.

    The corners are computed anew in the backward pass, so that nothing of their size is kept.
    """

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, spatial_shapes: Shapes, locations: Tensor, weights: Tensor
    ) -> Tensor:
        ctx.save_for_backward(value, locations, weights)
        ctx.spatial_shapes = spatial_shapes
        bs, num_queries, num_heads = locations.shape[:3]
        output = value.new_empty(bs, num_queries, num_heads * value.shape[-1])
        for image, chunk in _chunks(bs, num_queries):
            corners = _Corners(locations[image, chunk], spatial_shapes)
            counts = corners.shares().mul_(weights[image, chunk].unsqueeze(2))
            summed = F.embedding_bag(
                corners.rows,
                value[image].flatten(0, 1),
                mode="sum",
                per_sample_weights=counts.view_as(corners.rows),
            )
            output[image, chunk] = summed.view(-1, output.shape[-1])
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        value, locations, weights = ctx.saved_tensors
        grad_value = torch.zeros_like(value)
        grad_locations = torch.empty_like(locations)
        grad_weights = torch.empty_like(weights)
        bs, num_queries = locations.shape[:2]
        for image, chunk in _chunks(bs, num_queries):
            corners = _Corners(locations[image, chunk], ctx.spatial_shapes)
            shares = corners.shares()
            weight = weights[image, chunk].unsqueeze(2)
            table = value[image].flatten(0, 1)
            bags, per_bag = corners.rows.shape
            by_bag = grad[image, chunk].reshape(bags, -1)
            by_share = torch.ops.aten._embedding_bag_per_sample_weights_backward(
                by_bag,
                table,
                corners.rows.flatten(),
                torch.arange(0, bags * per_bag, per_bag, dtype=torch.int32),
                torch.arange(bags, dtype=torch.int32).repeat_interleave(per_bag),
                0,
            ).view_as(shares)
            grad_weights[image, chunk] = (by_share * shares).sum(2)
            counts = shares.mul_(weight)
            grad_value[image] += _transposed(corners.rows, counts, by_bag, len(table)).view_as(
                grad_value[image]
            )
            grad_locations[image, chunk] = corners.location_gradient(by_share.mul_(weight))
        return grad_value, None, grad_locations, grad_weights


def _transposed(rows: Tensor, counts: Tensor, by_bag: Tensor, num_rows: int) -> Tensor:
    """Sum into every row of the table what the bags that read it hand back.

    Sorted by row, the same pairs are bags again, of bags: ``embedding_bag`` in the other direction,
    which is three times as fast as torch's own gradient by the table.
    """
    ordered, order = rows.flatten().sort()
    starts = torch.searchsorted(ordered, torch.arange(num_rows, dtype=ordered.dtype))
    return F.embedding_bag(
        order.div(rows.shape[1], rounding_mode="floor"),
        by_bag,
        starts,
        mode="sum",
        per_sample_weights=counts.flatten()[order],
    )


def _chunks(bs: int, num_queries: int) -> list[tuple[int, slice]]:
    """Every image's queries in runs of at most ``_CHUNK``."""
    starts = range(0, num_queries, _CHUNK)
    return [(image, slice(start, start + _CHUNK)) for image in range(bs) for start in starts]
