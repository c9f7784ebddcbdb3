"""Attention and interpolation as plain loops over Python numbers."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def attend_by_hand(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    padding: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Softmax attention, head by head; keys that are padding are skipped.

    Shape:
        query: (bs, num_queries, num_heads, dims)
        key: (bs, num_keys, num_heads, dims)
        value: (bs, num_keys, num_heads, value_dims)
        padding: (bs, num_keys) bool, True on padding; or None.
        bias: (bs, num_heads, num_queries, num_keys), added to the scaled scores; or None.
        returns: (bs, num_queries, num_heads * value_dims) float64
    """
    bs, num_queries, num_heads, _ = query.shape
    num_keys = key.shape[1]
    queries, keys, values = query.tolist(), key.tolist(), value.tolist()
    outputs: list[list[list[float]]] = []
    for image in range(bs):
        seen = [k for k in range(num_keys) if padding is None or not padding[image, k]]
        outputs.append([])
        for q in range(num_queries):
            output: list[float] = []
            for head in range(num_heads):
                own = queries[image][q][head]
                scores = []
                for k in seen:
                    score = scale * sum(
                        a * b for a, b in zip(own, keys[image][k][head], strict=True)
                    )
                    scores.append(score + (0.0 if bias is None else float(bias[image, head, q, k])))
                weights = softmax_by_hand(scores)
                for dim in range(len(values[image][0][head])):
                    terms = [
                        w * values[image][k][head][dim] for w, k in zip(weights, seen, strict=True)
                    ]
                    output.append(sum(terms))
            outputs[-1].append(output)
    return torch.tensor(outputs, dtype=torch.float64)


def softmax_by_hand(scores: list[float]) -> list[float]:
    """Positive, in the proportions of the exponentials, and 1 in sum."""
    exponentials = [math.exp(score) for score in scores]
    return [x / sum(exponentials) for x in exponentials]


def interpolate_by_hand(rows: list[list[list[float]]], y: float, x: float) -> list[float]:
    """All channels at a place between cells, where neighbours outside of the map count as 0.

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
