"""Weighted sums of bilinear samples on the CPU, as sums of table rows."""

from __future__ import annotations

import warnings
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

Shapes = tuple[tuple[int, int], ...]

# Queries per chunk, so that their corners stay in the CPU's cache.
_CHUNK = 1024
# Zero cells around each map in the table.
_BORDER = 2


def fits(shapes: Shapes, num_heads: int) -> bool:
    """Whether float32 represents all row numbers of the table exactly: fewer than 2**24."""
    cells = sum((h + 2 * _BORDER) * (w + _BORDER) + _BORDER for h, w in shapes)
    return cells * num_heads < 2**24


def sample(value: Tensor, locations: Tensor, weights: Tensor, shapes: Shapes) -> Tensor:
    """Compute ``sample_and_sum`` without keeping the samples."""
    layout = _layout_of(shapes, locations)
    bs, num_queries, num_heads = weights.shape[:3]
    output = value.new_empty(bs, num_queries, num_heads * value.shape[-1])
    for image in range(bs):
        table = layout.table(value[image])
        for chunk in _chunks(num_queries):
            corners = _Corners(locations[image, chunk], layout)
            rows = corners.rows()
            counts = weights.new_empty(len(corners.first), num_heads, 4, layout.samples)
            corners.counts(weights[image, chunk], counts.movedim(2, 0))
            summed = F.embedding_bag(
                rows, table, mode="sum", per_sample_weights=counts.view_as(rows)
            )
            output[image, chunk] = summed.view(-1, output.shape[-1])
    return output


def hand_back(
    value: Tensor, locations: Tensor, weights: Tensor, grad: Tensor, shapes: Shapes
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, locations and weights.

    Recomputes the corners, to keep no tensor of their size.
    """
    layout = _layout_of(shapes, locations)
    bs, num_queries, num_heads = weights.shape[:3]
    grad_value, grad_locations, grad_weights = (
        x.new_empty(x.shape) for x in (value, locations, weights)
    )
    bags = grad.reshape(bs, num_queries * num_heads, -1)
    for image in range(bs):
        table = layout.table(value[image])
        first = torch.empty(num_queries, num_heads * layout.samples, dtype=torch.int32)
        counts = weights.new_empty(4, num_queries, num_heads, layout.samples)
        for chunk in _chunks(num_queries):
            corners = _Corners(locations[image, chunk], layout)
            weight = weights[image, chunk]
            rows = corners.rows()
            by_bag = bags[image].unflatten(0, (num_queries, num_heads))[chunk].flatten(0, 1)
            by_corner = _dot_products(by_bag, table, rows).view(len(weight), num_heads, 4, -1)
            by_location, by_weight = corners.gradients(by_corner, weight)
            grad_locations[image, chunk] = by_location.view_as(grad_locations[image, chunk])
            grad_weights[image, chunk] = by_weight.view_as(weight)
            first[chunk] = corners.first
            corners.counts(weight, counts[:, chunk])
        grad_value[image] = layout.tokens(_sum_by_row(first, counts, bags[image], layout))
    return grad_value, grad_locations, grad_weights


def _layout_of(shapes: Shapes, locations: Tensor) -> _Layout:
    return _layout(shapes, locations.shape[2], locations.shape[4], locations.dtype)


class _Layout:
    """Layout of all levels' maps in one table: a row per cell and head, zeros around each map.

    A border of two cells on each side takes all samples outside of a map, so no mask is needed.
    Numbers are repeated to (num_heads * num_levels * num_points), because arithmetic over short
    broadcast axes is several times slower.
    """

    def __init__(self, shapes: Shapes, num_heads: int, num_points: int, dtype: torch.dtype) -> None:
        self.shapes, self.num_heads, self.samples = shapes, num_heads, len(shapes) * num_points
        starts, widths, self.num_cells = [], [], 0
        for h, w in shapes:
            starts.append(self.num_cells)
            widths.append(w + _BORDER)  # neighbouring rows share a border
            self.num_cells += (h + 2 * _BORDER) * (w + _BORDER) + _BORDER

        self.num_rows = self.num_cells * num_heads

        def per_sample(numbers: list[int], dtype: torch.dtype = dtype) -> Tensor:
            """One number per level -> (num_heads * num_levels * num_points,)."""
            levels = torch.tensor(numbers, dtype=dtype)
            return levels.repeat_interleave(num_points).repeat(num_heads)

        self.sizes = torch.stack(  # (2, 1, n): x, y
            [per_sample([w for _, w in shapes]), per_sample([h for h, _ in shapes])]
        ).unsqueeze(1)
        self.row_stride = per_sample([width * num_heads for width in widths])
        origins = [s + _BORDER * (w + 1) for s, w in zip(starts, widths, strict=True)]
        heads = torch.arange(num_heads, dtype=dtype).repeat_interleave(self.samples)
        self.origin = per_sample([o * num_heads for o in origins]).add_(heads)
        width = per_sample(widths, torch.int32)[: self.samples]
        # Offsets of the four corners in table rows, each (num_levels * num_points,).
        right = torch.full_like(width, num_heads)
        self.steps = [torch.zeros_like(right), right, width * num_heads, width * num_heads + right]
        self.level_steps = [(0, num_heads, w * num_heads, (w + 1) * num_heads) for w in widths]
        self.spans = [
            (start * num_heads, (h + 2 * _BORDER) * width * num_heads)
            for start, (h, _), width in zip(starts, shapes, widths, strict=True)
        ]

    def table(self, value: Tensor) -> Tensor:
        """(num_tokens, num_heads, dims) of one image -> (num_cells * num_heads, dims)."""
        table = value.new_zeros(self.num_cells, *value.shape[1:])
        for tokens, cells in zip(self._split(value), self._maps(table), strict=True):
            cells.copy_(tokens)
        return table.flatten(0, 1)

    def tokens(self, table: Tensor) -> Tensor:
        """Inverse of ``table``, without the border."""
        maps = self._maps(table.unflatten(0, (self.num_cells, self.num_heads)))
        return torch.cat([cells.flatten(0, 1) for cells in maps])

    def _split(self, value: Tensor) -> list[Tensor]:
        parts = value.split([h * w for h, w in self.shapes])
        return [part.unflatten(0, shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def _maps(self, table: Tensor) -> list[Tensor]:
        """Views of the maps, (h, w, num_heads, dims), without their borders."""
        maps, start = [], 0
        for h, w in self.shapes:
            width = w + _BORDER
            cells = table[start : start + (h + 2 * _BORDER) * width].unflatten(0, (-1, width))
            maps.append(cells[_BORDER : _BORDER + h, _BORDER:])
            start += (h + 2 * _BORDER) * width + _BORDER
        return maps


_layout = lru_cache(maxsize=64)(_Layout)


class _Corners:
    """The four cells around every sample of some queries of an image.

    A query and head reads ``4 * num_levels * num_points`` rows of the table. Row numbers have the
    locations' type, exact in float32 below 2**24 rows.
    """

    def __init__(self, locations: Tensor, layout: _Layout) -> None:
        """``locations``: (num_queries, num_heads, num_levels, num_points, 2) of one image."""
        self.layout = layout
        apart = locations.flatten(1, 3).movedim(-1, 0)  # (2, num_queries, n): x, y
        pixels = torch.mul(apart, layout.sizes, out=apart.new_empty(apart.shape)).sub_(0.5)
        low = pixels.floor()
        # Weight of the higher cell, from the raw location, so that NaN and inf reach the output.
        self.x, self.y = pixels.sub_(low)
        low = torch.clamp(low, low.new_full((), -_BORDER), layout.sizes)
        first = torch.addcmul(layout.origin, low[1], layout.row_stride)
        first = first.add_(low[0], alpha=layout.num_heads).nan_to_num_(0.0)
        self.first = first.to(torch.int32)  # (num_queries, n), row of the upper left corner

    def rows(self) -> Tensor:
        """The rows of every bag (query, head): (bags, 4 * num_levels * num_points)."""
        first = self.first.unflatten(1, (self.layout.num_heads, -1))
        rows = first.new_empty(*first.shape[:2], 4, first.shape[2])
        for corner, step in enumerate(self.layout.steps):
            torch.add(first, step, out=rows[:, :, corner])
        return rows.flatten(2).flatten(0, 1)

    def counts(self, weights: Tensor, out: Tensor) -> Tensor:
        """Bilinear weights of the corners, into ``out``: four of (num_queries, heads, samples)."""
        weights, x, y = (self._by_head(z) for z in (weights, self.x, self.y))
        upper_left, upper_right, lower_left, lower_right = out
        lower = y * weights
        upper = weights - lower
        torch.mul(lower, x, out=lower_right)
        torch.sub(lower, lower_right, out=lower_left)
        torch.mul(upper, x, out=upper_right)
        torch.sub(upper, upper_right, out=upper_left)
        return out

    def gradients(self, by_corner: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of locations and weights, from the gradients of the corners.

        Shape:
            by_corner: (num_queries, num_heads, 4, num_levels * num_points)
            returns: (num_queries, n, 2) and (num_queries, n)
        """
        x, y = self._by_head(self.x), self._by_head(self.y)
        upper_left, upper_right, lower_left, lower_right = by_corner.unbind(2)
        along_upper, along_lower = upper_right - upper_left, lower_right - lower_left
        upper = torch.addcmul(upper_left, x, along_upper)
        down = torch.addcmul(lower_left, x, along_lower).sub_(upper)
        by_weight = torch.addcmul(upper, y, down)
        right = along_upper.addcmul_(y, along_lower.sub_(along_upper))
        weights = weights.flatten(1)
        by_x = right.flatten(1).mul_(weights).mul_(self.layout.sizes[0])
        by_y = down.flatten(1).mul_(weights).mul_(self.layout.sizes[1])
        return torch.stack([by_x, by_y], dim=-1), by_weight.flatten(1)

    def _by_head(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), self.layout.num_heads, -1)


def _dot_products(by_bag: Tensor, table: Tensor, rows: Tensor) -> Tensor:
    """Dot products of every bag's vector with each row that it reads: (bags, rows per bag).

    A sampled matrix product, which is vectorised, unlike the weight gradient of torch's
    ``embedding_bag``.
    """
    bags, per_bag = rows.shape
    _swallow_beta_warning()
    wanted = torch.sparse_csr_tensor(
        torch.arange(0, bags * per_bag + 1, per_bag, dtype=torch.int32),
        rows.flatten(),
        table.new_zeros(rows.numel()),
        (bags, len(table)),
        check_invariants=False,
    )
    return torch.sparse.sampled_addmm(wanted, by_bag, table.t(), beta=0.0).values()


@lru_cache(maxsize=1)
def _swallow_beta_warning() -> None:
    """Suppress torch's warnings that sparse CSR tensors are beta and unchecked.

    Done once, without ``catch_warnings``, which is not thread-safe and resets the warnings that
    were shown.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support|Sparse invariant checks")
        torch.zeros(1, 1).to_sparse_csr()
        rows = torch.tensor([0, 1]), torch.tensor([0]), torch.zeros(1)
        torch.sparse_csr_tensor(*rows, (1, 1), check_invariants=False)


def _sum_by_row(first: Tensor, counts: Tensor, bags: Tensor, layout: _Layout) -> Tensor:
    """Scatter the bags' gradients back to the rows of the table that they read.

    A second ``embedding_bag`` over (bag, row) pairs sorted by row is faster than torch's gradient
    of the table. The four corners of a sample have fixed offsets per level, so their sums are
    collected at the first corner and moved.
    """
    ordered, order = first.flatten().sort()
    starts = torch.searchsorted(ordered, torch.arange(layout.num_rows, dtype=ordered.dtype))
    of_bag = order.div(layout.samples, rounding_mode="floor")
    total = bags.new_zeros(layout.num_rows, bags.shape[1])
    for corner, count in enumerate(counts):
        by_first = F.embedding_bag(
            of_bag, bags, starts, mode="sum", per_sample_weights=count.flatten()[order]
        )
        for (start, size), steps in zip(layout.spans, layout.level_steps, strict=True):
            step = steps[corner]
            total[start + step : start + size] += by_first[start : start + size - step]
    return total


def _chunks(num_queries: int) -> list[slice]:
    """Chunks of at most ``_CHUNK`` queries."""
    return [slice(start, start + _CHUNK) for start in range(0, num_queries, _CHUNK)]
