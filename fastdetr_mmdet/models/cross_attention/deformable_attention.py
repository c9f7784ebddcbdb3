"""Deformable cross-attention (Zhu et al. 2021, arXiv 2010.04159)."""

from __future__ import annotations

import math

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...ops import level_shapes, sample_and_sum
from ...structures import Memory, Queries
from ...structures.boxes import at_least_float32
from ..layers import OutProjection, project
from ..parts import CrossAttention, Explanation, Field


@MODELS.register_module()
class DeformableAttention(CrossAttention):
    """Each query samples a few points around its reference on every level.

    Paper: Deformable DETR, Zhu et al. 2021, arXiv 2010.04159, Sec. 4.1, Eq. 3 (Eq. 2 on one level).
    For reference points, offsets are in cells of the level; for reference boxes they are multiples
    of ``0.5 / num_points`` of the box's size (Sec. A.4). CUDA samples with mmcv's compiled op, the
    CPU with this package's op, export and compilation with ``grid_sample``. All read zeros outside
    of the map and on padding.

    Args:
        embed_dims: Width.
        num_levels: Levels of the memory.
        num_points: Points per head and level.
        **context: As for ``LayerPart``; dropout is not used, since there is no attention matrix.

    Raises:
        ValueError: in forward, if the memory does not have num_levels levels.
    """

    reads = frozenset({Field.POINT})

    def __init__(
        self, embed_dims: int, num_levels: int = 4, num_points: int = 4, **context
    ) -> None:
        super().__init__(embed_dims, **context)
        num_heads = self.num_heads
        self.num_levels, self.num_points = num_levels, num_points
        samples = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(embed_dims, samples * 2)
        self.attention_weights = nn.Linear(embed_dims, samples)
        self.value_proj = OutProjection(embed_dims)
        self.out_proj = OutProjection(embed_dims)
        for linear in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        # Head h looks in direction 2 pi h / num_heads; its i-th point is i cells away.
        angles = torch.arange(num_heads, dtype=torch.float32) * (2 * math.pi / num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, num_points + 1, dtype=torch.float32)
        grid = directions[:, None, None] * steps[None, None, :, None]  # (heads, 1, points, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(grid.expand(-1, num_levels, -1, -1).flatten())

    def forward(
        self, queries: Queries, memory: Memory, spatial_prior: Tensor | None = None
    ) -> Tensor:
        """See ``CrossAttention.forward``."""
        if memory.num_levels != self.num_levels:
            raise ValueError(
                f"DeformableAttention has num_levels={self.num_levels}, but the memory has "
                f"{memory.num_levels} levels; set num_levels in transformer.decoder.cross_attn."
            )
        value = self.value_proj(memory.tokens)
        if memory.padding_mask is not None:
            value = value.masked_fill(memory.padding_mask.unsqueeze(-1), 0.0)
        locations, weights = self._points(queries, memory)
        value = value.unflatten(-1, (self.num_heads, -1))
        return self.out_proj(sample_and_sum(value, memory.spatial_shapes, locations, weights))

    def explain(
        self, queries: Queries, memory: Memory, spatial_prior: Tensor | None = None
    ) -> Explanation:
        """Sampling points of ``forward`` and their weights; see ``Explanation``."""
        locations, weights = self._points(queries, memory)
        return Explanation(points=locations, point_weights=weights)

    def _points(self, queries: Queries, memory: Memory) -> tuple[Tensor, Tensor]:
        """Locations and weights, (bs, num_queries, num_heads, num_levels, num_points[, 2])."""
        query = queries.located
        shape = (self.num_heads, self.num_levels, self.num_points)
        offsets = project(self.sampling_offsets, query, self.num_heads)
        offsets = at_least_float32(offsets).unflatten(-1, (*shape, 2))
        weights = project(self.attention_weights, query, self.num_heads)
        weights = at_least_float32(weights).unflatten(-1, (self.num_heads, -1))
        weights = weights.softmax(-1).unflatten(-1, shape[1:])
        assert queries.reference is not None  # check_flow guarantees it
        return self.sampling_locations(queries.reference, offsets, memory), weights

    def sampling_locations(self, reference: Tensor, offsets: Tensor, memory: Memory) -> Tensor:
        """Sampling locations, normalised to the padded maps.

        Shape:
            reference: (bs, num_queries, 2 or 4)
            offsets: (bs, num_queries, num_heads, num_levels, num_points, 2)
            returns: as offsets, (x, y)
        """
        ratios = memory.valid_ratios[:, None, :, None]  # (bs, 1, num_levels, 1, 2)

        def per_point(x: Tensor) -> Tensor:
            """Repeat for every level and point: (bs, num_queries, num_levels * num_points * 2).

            Materialised, because arithmetic over a short broadcast axis is several times slower.
            """
            return x.expand(-1, -1, -1, self.num_points, -1).flatten(2)

        centres = per_point(reference[:, :, None, None, :2] * ratios).unsqueeze(2)
        steps = offsets.flatten(3)  # (bs, num_queries, num_heads, num_levels * num_points * 2)
        if reference.shape[-1] == 4:
            sizes = reference[:, :, None, None, 2:] * ratios * (0.5 / self.num_points)
            locations = torch.addcmul(centres, steps, per_point(sizes).unsqueeze(2))
        else:
            shapes, _ = level_shapes(memory.spatial_shapes, offsets.device)
            cells = shapes.flip(-1).to(offsets.dtype)
            locations = torch.addcdiv(centres, steps, per_point(cells[None, None, :, None])[0, 0])
        return locations.view(offsets.shape)
