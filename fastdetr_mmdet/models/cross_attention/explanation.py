"""What a cross-attention can show of itself: the one small interface to the viewer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Explanation:
    """Where a cross-attention looked, for everything that it was called with.

    A part states what it can show by a method ``explain(queries, memory, spatial_prior)`` with the
    arguments of its ``forward``, which returns this; what it cannot show stays None. Nothing of it
    happens in ``forward``: the viewer notes what the part was called with and asks afterwards. A
    part without the method is shown by its boxes alone.

    Shape:
        weights: (bs, num_heads, num_queries, num_tokens), share of each token in what the head
            reads, [0, 1], 0 on padding; they add up to 1 over the tokens of all levels.
        level_weights: (bs, num_queries, num_levels), share of each level where the part chooses
            between levels (scale selection); contained in ``weights``.
        points: (bs, num_queries, num_heads, num_levels, num_points, 2), (x, y) of what is read
            between the cells, normalised to the padded map, outside of [0, 1] possible.
        point_weights: (bs, num_queries, num_heads, num_levels, num_points), share of each point,
            [0, 1]; they add up to 1 over levels and points.
    """

    weights: Tensor | None = None
    level_weights: Tensor | None = None
    points: Tensor | None = None
    point_weights: Tensor | None = None
