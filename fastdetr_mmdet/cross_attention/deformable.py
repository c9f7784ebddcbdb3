"""Deformable cross-attention (Zhu et al. 2021, arXiv 2010.04159)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from ..layers import OutProjection, check_heads, project
from ..structures import Memory, Queries


@MODELS.register_module()
class DeformableAttention(nn.Module):
    """Each query reads a few points around its reference on every level.

    Paper: Deformable DETR, Zhu et al. 2021, arXiv 2010.04159, Sec. 4.1, Eq. 3 (Eq. 2 on one level).
    Offsets are in cells of the level for reference points, and in shares of the box, divided by
    num_points and halved, for reference boxes (Sec. A.4). On CUDA the sampling is mmcv's compiled
    op, elsewhere and for export ``grid_sample``; both read zeros outside of the map and on padding.

    Args:
        embed_dims: Width.
        num_heads: Heads; must divide embed_dims.
        num_levels: Levels of the memory.
        num_points: Points per head and level.
        dropout: Not used; there is no attention matrix to drop from.
        layer_index: Not used; every cross-attention is told which decoder layer it sits in.

    Raises:
        ValueError: if embed_dims is not divisible by num_heads, or the memory has not num_levels.
    """

    needs_reference = True
    takes_spatial_prior = False
    reads_pos = False

    def __init__(
        self,
        embed_dims: int,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        dropout: float = 0.1,
        layer_index: int = 0,
    ) -> None:
        super().__init__()
        check_heads("DeformableAttention", embed_dims, num_heads)
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        samples = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(embed_dims, samples * 2)
        self.attention_weights = nn.Linear(embed_dims, samples)
        self.value_proj = OutProjection(embed_dims)
        self.out_proj = OutProjection(embed_dims)
        for linear in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        # Head h looks in the direction of angle 2 pi h / num_heads, its i-th point i cells away.
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
        """Sample around the references.

        Shape:
            returns: (bs, num_queries, embed_dims), without the residual.
        """
        if memory.num_levels != self.num_levels:
            raise ValueError(
                f"DeformableAttention has num_levels={self.num_levels}, but gets a memory of "
                f"{memory.num_levels} levels; set num_levels in transformer.decoder.cross_attn."
            )
        query = queries.located
        value = self.value_proj(memory.tokens)
        if memory.padding_mask is not None:
            value = value.masked_fill(memory.padding_mask.unsqueeze(-1), 0.0)
        shape = (self.num_heads, self.num_levels, self.num_points)
        offsets = project(self.sampling_offsets, query, self.num_heads)
        offsets = offsets.float().unflatten(-1, (*shape, 2))
        weights = project(self.attention_weights, query, self.num_heads)
        weights = weights.float().unflatten(-1, (self.num_heads, -1))
        weights = weights.softmax(-1).unflatten(-1, shape[1:])
        assert queries.reference is not None  # the transformer refuses queries without
        locations = self.sampling_locations(queries.reference, offsets, memory)
        value = value.unflatten(-1, (self.num_heads, -1))
        return self.out_proj(sample_and_sum(value, memory.spatial_shapes, locations, weights))

    def sampling_locations(self, reference: Tensor, offsets: Tensor, memory: Memory) -> Tensor:
        """Where to read, normalised to the padded maps.

        Shape:
            reference: (bs, num_queries, 2 or 4)
            offsets: (bs, num_queries, num_heads, num_levels, num_points, 2)
            returns: as offsets, (x, y)
        """
        ratios = memory.valid_ratios[:, None]  # (bs, 1, num_levels, 2)
        centres = (reference[:, :, None, :2] * ratios)[:, :, None, :, None]
        if reference.shape[-1] == 4:
            sizes = (reference[:, :, None, 2:] * ratios)[:, :, None, :, None]
            return centres + offsets / self.num_points * sizes * 0.5
        cells = offsets.new_tensor([[w, h] for h, w in memory.spatial_shapes])
        return centres + offsets / cells[:, None]


def sample_and_sum(
    value: Tensor,
    spatial_shapes: tuple[tuple[int, int], ...],
    locations: Tensor,
    weights: Tensor,
) -> Tensor:
    """Bilinear samples of all levels, weighted and summed.

    Shape:
        value: (bs, num_tokens, num_heads, dims)
        locations: (bs, num_queries, num_heads, num_levels, num_points, 2), (x, y) in [0, 1]
        weights: (bs, num_queries, num_heads, num_levels, num_points)
        returns: (bs, num_queries, num_heads * dims)
    """
    if value.is_cuda and not torch.onnx.is_in_onnx_export():  # which does not know mmcv's op
        return _sample_and_sum_compiled(value, spatial_shapes, locations, weights)
    bs, _, num_heads, _ = value.shape
    dtype = value.dtype
    value = value.to(locations.dtype)  # in float32, as the compiled op: coordinates need it
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


def _sample_and_sum_compiled(
    value: Tensor,
    spatial_shapes: tuple[tuple[int, int], ...],
    locations: Tensor,
    weights: Tensor,
) -> Tensor:
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    shapes = torch.tensor(spatial_shapes, dtype=torch.long)
    starts = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])
    # in float32: the op has no bfloat16, and its coordinates need the precision
    output = MultiScaleDeformableAttnFunction.apply(
        value.float(), shapes.to(value.device), starts.to(value.device), locations, weights, 64
    )
    return output.to(value.dtype)
