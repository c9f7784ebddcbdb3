"""Self-attention of Relation-DETR: relations of the boxes are added to the scores."""

from __future__ import annotations

from dataclasses import replace

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...structures import Queries
from ..layers import attention_bias
from ..parts import Field
from .multihead_self_attention import MultiheadSelfAttention

_WAVES = 8  # sines, and as many cosines, per entry of the relation
_EPS = 1e-5  # lower limit of widths and heights


@MODELS.register_module()
class RelationSelfAttention(MultiheadSelfAttention):
    """Plain self-attention with a bias from distances and relative sizes of the queries' boxes.

    Paper: Relation-DETR, Hou et al. 2024, arXiv 2407.11699, Sec. 4.

    The score of query i for query j grows by ``ReLU(W sine(e_ij) + b)``, one value per head, with
    ``e_ij = [log(|x_i - x_j| / w_i + 1), log(|y_i - y_j| / h_i + 1), log(w_i / w_j), log(h_i /
    h_j)]``; i's box is the reference of the layer before, j's that of this layer. The first layer
    has no bias. Boxes get no gradient.

    Differences from the official code: each layer has its own projection; the box of the layer
    before is its reference, which differs from its predicted box if the decoder has
    ``refine_normed=False``.

    Costs grow with the square of the number of queries. Compared with plain self-attention,
    training with 300 queries keeps 17 MiB more per layer and image and takes 2.8 times the CPU
    time; with 900 queries, 149 MiB more and 3.5 times (``python -m benchmarks.parts``).

    Args:
        embed_dims: Width.
        **context: As for ``LayerPart``.
    """

    reads = frozenset({Field.BOX, Field.MASK})

    def __init__(self, embed_dims: int, **context) -> None:
        super().__init__(embed_dims, **context)
        self.relation_proj: nn.Linear | None = None
        if self.layer_index > 0:
            self.relation_proj = nn.Linear(4 * 2 * _WAVES, self.num_heads)

    def forward(self, queries: Queries) -> Tensor:
        """See ``SelfAttention.forward``."""
        if self.relation_proj is not None:
            bias = attention_bias(queries.attend_mask, self._relation(queries, self.relation_proj))
            queries = replace(queries, attend_mask=bias)
        return super().forward(queries)

    def _relation(self, queries: Queries, proj: nn.Linear) -> Tensor:
        """Bias of the scores, (bs, num_heads, num_queries, num_queries), at least 0."""
        assert queries.reference is not None
        now = queries.reference.detach()
        before = now if queries.previous_reference is None else queries.previous_reference.detach()
        (one, size), (other, other_size) = (
            boxes.transpose(1, 2).split(2, dim=1) for boxes in (before, now)
        )  # (bs, 2, num_queries) each
        size, other_size = size + _EPS, other_size + _EPS
        exponent = torch.arange(_WAVES, dtype=now.dtype, device=now.device)[:, None] / _WAVES
        frequency = 100 / 10000**exponent
        sine, cosine = proj.weight.unflatten(1, (4, _WAVES, 2)).unbind(-1)

        # The logarithm of a ratio is a difference, so its sine is a product of terms of each box.
        mine, others = (x.log().unsqueeze(2) * frequency for x in (size, other_size))
        first = torch.cat([mine.sin(), mine.cos()], dim=2).to(sine.dtype)
        s, c = (x.unsqueeze(1).to(sine.dtype) for x in (others.sin(), others.cos()))
        by_sine, by_cosine = (weight[:, 2:, :, None] for weight in (sine, cosine))
        second = torch.cat([by_sine * c + by_cosine * s, by_cosine * c - by_sine * s], dim=3)
        bias = torch.einsum("bawi,bhawj->bhij", first, second) + proj.bias[:, None, None]

        # Distances need a sine per pair; one axis after the other, to use less memory.
        for axis in range(2):
            apart = (one[:, axis, :, None] - other[:, axis, None]).abs()
            angles = (apart / size[:, axis, :, None] + 1).log().unsqueeze(1) * frequency[..., None]
            for weight, embedded in ((sine, angles.sin()), (cosine, angles.cos())):
                told = torch.einsum("hw,bwij->bhij", weight[:, axis], embedded.to(weight.dtype))
                bias = bias + told
        return bias.relu()
