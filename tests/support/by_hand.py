"""Attention and interpolation written out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def attend_by_hand(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    padding: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Softmax attention in float64 that ignores padding keys.

    Shape:
        query: (bs, num_queries, num_heads, dims)
        key: (bs, num_keys, num_heads, dims)
        value: (bs, num_keys, num_heads, value_dims)
        padding: (bs, num_keys) bool, True on padding; or None.
        bias: (bs, num_heads, num_queries, num_keys), added to the scaled scores; or None.
        returns: (bs, num_queries, num_heads * value_dims) float64
    """
    scores = scale * torch.einsum("bqhd,bkhd->bhqk", query.double(), key.double())
    if bias is not None:
        scores = scores + bias
    exponentials = scores.exp()
    if padding is not None:
        exponentials = exponentials * ~padding[:, None, None]
    weights = exponentials / exponentials.sum(-1, keepdim=True)
    return torch.einsum("bhqk,bkhd->bqhd", weights, value.double()).flatten(2)


def as_torch(part: nn.Module) -> nn.MultiheadAttention:
    """torch's attention with the weights of a part's ``in_proj`` and ``out_proj``."""
    theirs = nn.MultiheadAttention(part.out_proj.in_features, part.num_heads, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = part.in_proj.proj.parameters()
    theirs.out_proj.load_state_dict(part.out_proj.state_dict())
    return theirs


def softmax_by_hand(scores: list[float]) -> list[float]:
    """Softmax of a list of scores."""
    exponentials = [math.exp(score) for score in scores]
    return [x / sum(exponentials) for x in exponentials]


def gaussian_by_hand(
    centre: list[float], scales: list[float], shape: tuple[int, int], cell_offset: float = 0.5
) -> Tensor:
    """``s_x^2 dx^2 + s_y^2 dy^2 + s_xy^2 dx^2 dy^2`` of each cell of a map, row by row.

    Args:
        centre: (x, y), in cells.
        scales: (s_x, s_y), or (s_x, s_y, s_xy).
        shape: (h, w) of the map.
        cell_offset: Coordinate of the first cell's centre.
    """
    s_x, s_y, s_xy = [*scales, 0.0][:3]
    distances = []
    for row in range(shape[0]):
        for column in range(shape[1]):
            dx2 = (column + cell_offset - centre[0]) ** 2
            dy2 = (row + cell_offset - centre[1]) ** 2
            distances.append(s_x**2 * dx2 + s_y**2 * dy2 + s_xy**2 * dx2 * dy2)
    return torch.tensor(distances)


def interpolate_by_hand(rows: list[list[list[float]]], y: float, x: float) -> list[float]:
    """Bilinear interpolation of all channels; neighbours outside of the map are 0.

    Args:
        rows: Cells as [row][column][channel].
        y: Row, 0 at the centre of the first.
        x: Column, likewise.
    """
    result = [0.0] * len(rows[0][0])
    top, left = math.floor(y), math.floor(x)
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < len(rows) and 0 <= column < len(rows[0]):
                weight = (1 - abs(y - row)) * (1 - abs(x - column))
                result = [r + weight * c for r, c in zip(result, rows[row][column], strict=True)]
    return result
