"""Learned object queries, with or without a reference point (DETR, Conditional DETR)."""

from __future__ import annotations

from typing import Literal

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...structures import Memory, Queries, Targets
from ..layers import MLP, init_xavier
from ..parts import BranchPair, Field, Made, QueryInitialiser


@MODELS.register_module()
class LearnedQueries(QueryInitialiser):
    """A learned vector per query and a reference point predicted from it; equal for every image.

    Paper: DETR, Carion et al. 2020, arXiv 2005.12872, Sec. 3.2 (``reference='none'``); Conditional
    DETR, Meng et al. 2021, arXiv 2108.06152, Sec. 3.3, ``s = sigmoid(FFN(o_q))`` (``'mlp'``);
    Deformable DETR, Zhu et al. 2021, arXiv 2010.04159, Sec. 4.1 (``'linear'``, with
    ``content='learned'``).

    Args:
        num_queries: Queries per image.
        embed_dims: Width.
        content: 'zero', or 'learned': a second vector per query.
        reference: How the reference point is predicted from the positional vector: 'none', 'mlp'
            (two layers) or 'linear'.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        embed_dims: int,
        num_queries: int = 300,
        content: Literal["zero", "learned"] = "zero",
        reference: Literal["none", "mlp", "linear"] = "none",
    ) -> None:
        super().__init__(embed_dims, num_queries)
        if content not in ("zero", "learned"):
            raise ValueError(f"LearnedQueries: content={content!r} must be 'zero' or 'learned'.")
        self.pos = nn.Embedding(num_queries, embed_dims)
        self.content = nn.Embedding(num_queries, embed_dims) if content == "learned" else None
        self.reference: nn.Module | None
        if reference == "mlp":
            self.reference = MLP(embed_dims, embed_dims, 2, num_layers=2)
            init_xavier(self.reference)
        elif reference == "linear":
            self.reference = nn.Linear(embed_dims, 2)
            nn.init.xavier_uniform_(self.reference.weight)
            nn.init.zeros_(self.reference.bias)
        elif reference == "none":
            self.reference = None
        else:
            raise ValueError(
                f"LearnedQueries: reference={reference!r} must be 'none', 'mlp' or 'linear'."
            )
        if self.reference is not None:
            self.makes = frozenset({Field.POINT})

    def forward(
        self, memory: Memory, proposal_branches: BranchPair = None, targets: Targets | None = None
    ) -> Made:
        """See ``QueryInitialiser.forward``; only the memory's number of images is used."""
        bs = memory.tokens.shape[0]
        pos = self.pos.weight
        content = torch.zeros_like(pos) if self.content is None else self.content.weight
        queries = Queries(content=_repeat(content, bs), pos=_repeat(pos, bs))
        if self.reference is None:
            return queries, None
        return queries.with_reference(_repeat(self.reference(pos), bs)), None


def _repeat(x: Tensor, bs: int) -> Tensor:
    """(num_queries, dims) -> (bs, num_queries, dims), a view."""
    return x.unsqueeze(0).expand(bs, -1, -1)
