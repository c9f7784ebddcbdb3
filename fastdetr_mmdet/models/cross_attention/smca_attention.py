"""Co-attention of SMCA (Gao et al. 2021, arXiv 2101.07448), with scale selection."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...structures import Memory, Queries
from ..layers import attend, attention_bias, attention_weights, init_xavier
from ..parts import Explanation, Field
from .multihead_cross_attention import MultiheadCrossAttention


@MODELS.register_module()
class SMCAAttention(MultiheadCrossAttention):
    """Dense attention within each scale; every query weighs the scales.

    Paper: SMCA, Gao et al. 2021, arXiv 2101.07448, Sec. 3.3, Eq. 8 and 9; Eq. 6 with a prior.

    On one level it is DETR's cross-attention. With a ``GaussianPrior`` it is the paper's spatially
    modulated co-attention, ``softmax(K^T Q / sqrt(d) + log G) V`` (Eq. 6). On several levels,
    attention runs within each level, and the results are summed with weights
    ``softmax(FC(query))``. Each image has its own weights; the official code uses the first image's
    weights for the whole batch.

    Args:
        embed_dims: Width.
        num_levels: Levels of the memory that a layer sees.
        **context: As for ``LayerPart``.
    """

    def __init__(self, embed_dims: int, num_levels: int = 1, **context) -> None:
        super().__init__(embed_dims, **context)
        self.num_levels = num_levels
        self.scale_selection: nn.Linear | None = None
        if num_levels > 1:
            self.reads = self.reads | {Field.EMBEDDED}
            self.scale_selection = nn.Linear(embed_dims, num_levels)
            init_xavier(self.scale_selection)

    def forward(
        self, queries: Queries, memory: Memory, spatial_prior: Tensor | None = None
    ) -> Tensor:
        """See ``CrossAttention.forward``."""
        if self.scale_selection is None:
            return super().forward(queries, memory, spatial_prior)
        query, key, value = self._project(queries, memory)
        dropout = self.dropout if self.training else 0.0
        selection = self._select(queries)
        attended: Tensor | None = None
        for level, (own, bias) in enumerate(_levels(memory, spatial_prior)):
            found = attend(query, key[:, own], value[:, own], self.num_heads, bias, dropout)
            weighted = found * selection[..., level : level + 1]
            attended = weighted if attended is None else attended + weighted
        return self.out_proj(attended)

    def explain(
        self, queries: Queries, memory: Memory, spatial_prior: Tensor | None = None
    ) -> Explanation:
        """Attention weights of ``forward`` over all levels; see ``Explanation``."""
        if self.scale_selection is None:
            return super().explain(queries, memory, spatial_prior)
        query, key, _ = self._project(queries, memory)
        selection = self._select(queries).float()
        weights = [
            attention_weights(query, key[:, own], self.num_heads, bias)
            * selection[:, None, :, level : level + 1]
            for level, (own, bias) in enumerate(_levels(memory, spatial_prior))
        ]
        return Explanation(weights=torch.cat(weights, dim=-1), level_weights=selection)

    def _select(self, queries: Queries) -> Tensor:
        """Share of each level, (bs, num_queries, num_levels)."""
        assert self.scale_selection is not None
        assert queries.embedded is not None  # the decoder layer makes it
        return self.scale_selection(queries.embedded).softmax(-1)


def _levels(memory: Memory, spatial_prior: Tensor | None) -> Iterator[tuple[slice, Tensor | None]]:
    """Per level its tokens, as a slice, and their bias."""
    mask = memory.attend_mask
    for own in memory.level_slices:
        yield (
            own,
            attention_bias(
                None if mask is None else mask[..., own],
                None if spatial_prior is None else spatial_prior[..., own],
            ),
        )
