"""Gaussian prior at the salient points of SAM-DETR ("SAM-DETR w/ SMCA")."""

from __future__ import annotations

import torch
from mmdet.registry import MODELS
from torch import Tensor

from ...structures import Memory, Queries
from ...structures.boxes import at_least_float32
from ..parts import Field, SpatialPrior
from .gaussian_prior import gaussian_scores


@MODELS.register_module()
class SalientGaussianPrior(SpatialPrior):
    """Add a Gaussian around each head's salient point, which the aligner found.

    Paper: SAM-DETR, Zhang et al. 2022, arXiv 2203.06883, Sec. 3.5, with the Gaussian of SMCA, Gao
    et al. 2021, arXiv 2101.07448, Eq. 5. Centres and scales come from the aligner; this part has no
    parameters. As in the official code, a scale of 0 gives a flat prior.

    Args:
        embed_dims: Not used; the part has no parameters.
        smooth: SMCA's beta: width of the Gaussian at scale 1, in squared cells.
        **context: As for ``LayerPart``.
    """

    reads = frozenset({Field.SALIENT})

    def __init__(self, embed_dims: int, smooth: float = 8.0, **context) -> None:
        super().__init__(embed_dims, **context)
        self.smooth = smooth

    def forward(self, queries: Queries, memory: Memory) -> Tensor:
        """See ``SpatialPrior.forward``; float32 at least, <= 0."""
        salient = queries.salient
        assert salient is not None and salient.scales is not None  # check_flow guarantees it
        scales = at_least_float32(salient.scales).square()
        scores = []
        for level, (h, w) in enumerate(memory.spatial_shapes):
            x, y = salient.points.unbind(-1)
            centres = torch.stack([x * w, y * h], dim=-1)
            centres = centres * memory.valid_ratios[:, level, None, None]
            scores.append(gaussian_scores(centres, scales, (h, w), 0.5, self.smooth))
        return torch.cat(scores, dim=-1)
