"""Gaussian-like spatial prior of SMCA (Gao et al. 2021, arXiv 2101.07448)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...structures import Memory, Queries
from ...structures.boxes import at_least_float32
from ..layers import MLP, init_xavier
from ..parts import Field, SpatialPrior

# Values per head that the scale branch predicts.
SCALES = {"fixed": 0, "single": 1, "independent": 2, "correlated": 3}


def gaussian_scores(
    centres: Tensor,
    scales: Tensor | None,
    shape: tuple[int, int],
    cell_offset: float,
    smooth: float,
) -> Tensor:
    """Logarithm of a Gaussian around each centre, on the cells of one level (SMCA, Eq. 5).

    ``-(s_x dx^2 + s_y dy^2 + s_xy dx^2 dy^2) / smooth``; dx depends on columns and dy on rows, so
    only the sum of their squares has the size of the map.

    Args:
        centres: In cells of the level.
        scales: Factors of dx^2 and dy^2: 1 value for both, 2 for one each, 3 with one for their
            product; None: 1.
        shape: (h, w) of the level.
        cell_offset: Coordinate of the first cell's centre, 0 or 0.5.
        smooth: The paper's beta: width of the Gaussian.

    Shape:
        centres: (bs, num_queries, num_heads, 2), (x, y)
        scales: (bs, num_queries, num_heads, 1, 2 or 3)
        returns: (bs, num_heads, num_queries, h * w), <= 0, float32 at least
    """
    h, w = shape
    centres = at_least_float32(centres).transpose(1, 2)  # (bs, num_heads, num_queries, 2)
    columns = torch.arange(w, dtype=centres.dtype, device=centres.device) + cell_offset
    rows = torch.arange(h, dtype=centres.dtype, device=centres.device) + cell_offset
    x = (centres[..., :1] - columns).square()  # (bs, num_heads, num_queries, w)
    y = (centres[..., 1:] - rows).square()
    product = None
    if scales is not None:
        scales = at_least_float32(scales).transpose(1, 2)
        if scales.shape[-1] == 3:
            product = (x * scales[..., 2:]).unsqueeze(-2) * y.unsqueeze(-1)
        x, y = x * scales[..., :1], y * scales[..., min(1, scales.shape[-1] - 1)].unsqueeze(-1)
    distance = x.unsqueeze(-2) + y.unsqueeze(-1)  # (bs, num_heads, num_queries, h, w)
    if product is not None:
        distance = distance + product
    return distance.flatten(-2) / -smooth


@MODELS.register_module()
class GaussianPrior(SpatialPrior):
    """Add a Gaussian around a predicted centre per query and head.

    Paper: SMCA, Gao et al. 2021, arXiv 2101.07448, Eq. 4 to 7.

    The centre is the query's reference point plus an offset per head; the scales are per head, too.
    On several levels, offset and scales are per level (as in the authors' multi-scale code). Both
    are predicted from ``Queries.embedded``, the layer's normed input query.

    As in the official code and unlike the paper, the scale is squared and multiplies the squared
    distance (the paper divides by w^2), and with ``strides`` the reference point is placed by the
    image's size in pixels instead of the map's valid ratio.

    Args:
        embed_dims: Width.
        num_levels: Levels of the memory that a layer sees.
        scale_type: Scales per head: 'fixed': 1; 'single': one; 'independent': one each along x and
            y (published setting); 'correlated': these and one for their product. The official
            code's --dynamic_scale type1 to type4.
        predict_reference: Whether the first layer predicts the reference points of all layers from
            its embedded queries, by an MLP (SMCA); otherwise the query initialiser makes them.
        strides: Per level the pixels per cell, as the official code places the reference; None:
            derived from the map's size and valid ratio, which is right for any image size.
        cell_offset: Coordinate of a cell's centre: 0.5, or 0 as in the official code.
        smooth: The paper's beta: width of the Gaussian at scale 1, in squared cells.
        unit: Stride whose cells measure distances: on a level of stride s squared distances are
            multiplied by s / unit. None: each level uses its own cells.
        **context: As for ``LayerPart``.

    Raises:
        ValueError: if scale_type is unknown, or strides and unit do not fit num_levels.
    """

    reads = frozenset({Field.POINT, Field.EMBEDDED})

    def __init__(
        self,
        embed_dims: int,
        num_levels: int = 1,
        scale_type: Literal["fixed", "single", "independent", "correlated"] = "independent",
        predict_reference: bool = False,
        strides: Sequence[int] | None = None,
        cell_offset: float = 0.5,
        smooth: float = 8.0,
        unit: float | None = None,
        **context,
    ) -> None:
        super().__init__(embed_dims, **context)
        num_heads = self.num_heads
        if scale_type not in SCALES:
            raise ValueError(
                f"GaussianPrior: scale_type={scale_type!r} must be one of {', '.join(SCALES)}."
            )
        if strides is not None and len(strides) != num_levels:
            raise ValueError(
                f"GaussianPrior: strides={list(strides)} has {len(strides)} entries for "
                f"num_levels={num_levels}; give one stride per level."
            )
        self.num_levels = num_levels
        self.strides = strides
        self.cell_offset, self.smooth = cell_offset, smooth
        self.widening = [1.0] * num_levels
        if unit is not None:
            if strides is None:
                raise ValueError(f"GaussianPrior: unit={unit} needs strides, one per level.")
            self.widening = [unit / stride for stride in strides]
        self.reference_branch: MLP | None = None
        if predict_reference and self.layer_index == 0:
            self.makes = self.makes | {Field.POINT}
            self.reference_branch = MLP(embed_dims, embed_dims, 2, num_layers=3)
        self.offset_branch = nn.Linear(embed_dims, num_levels * num_heads * 2)
        init_xavier(self)
        self.scale_branch: nn.Linear | None = None
        if SCALES[scale_type]:
            self.scale_branch = nn.Linear(embed_dims, num_levels * num_heads * SCALES[scale_type])
            nn.init.zeros_(self.scale_branch.weight)
            nn.init.ones_(self.scale_branch.bias)

    def locate(self, queries: Queries) -> Queries:
        """See ``SpatialPrior.locate``; predicted from the embedded queries (first layer only)."""
        assert self.reference_branch is not None and queries.embedded is not None
        return queries.with_reference(self.reference_branch(queries.embedded))

    def forward(self, queries: Queries, memory: Memory) -> Tensor:
        """See ``SpatialPrior.forward``; float32 at least, <= 0."""
        assert queries.embedded is not None and queries.reference is not None
        per_level = (self.num_levels, self.num_heads, -1)
        offsets = at_least_float32(self.offset_branch(queries.embedded)).unflatten(-1, per_level)
        scales = None
        if self.scale_branch is not None:
            scales = at_least_float32(self.scale_branch(queries.embedded))
            scales = scales.unflatten(-1, per_level).square()
        centres = queries.reference[..., None, :2]  # (bs, num_queries, 1 for the heads, 2)
        return torch.cat(
            [
                gaussian_scores(
                    centres * self._extent(memory, level)[:, None, None] + offsets[:, :, level],
                    None if scales is None else scales[:, :, level],
                    shape,
                    self.cell_offset,
                    self.smooth * self.widening[level],
                )
                for level, shape in enumerate(memory.spatial_shapes)
            ],
            dim=-1,
        )

    def _extent(self, memory: Memory, level: int) -> Tensor:
        """(bs, 2) width and height of the un-padded image, in cells of the level."""
        if self.strides is not None:
            assert memory.image_sizes is not None  # the detector gives them
            return memory.image_sizes / self.strides[level]
        h, w = memory.spatial_shapes[level]
        ratios = memory.valid_ratios[:, level]
        return torch.stack([ratios[:, 0] * w, ratios[:, 1] * h], dim=-1)
