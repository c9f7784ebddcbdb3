"""Learned reference boxes instead of learned object queries (SAM-DETR, DAB-DETR)."""

from __future__ import annotations

from mmdet.registry import MODELS
from torch import Tensor, nn

from ...structures import Memory, Queries, Targets
from ..parts import BranchPair, Field, Made, QueryInitialiser


@MODELS.register_module()
class LearnedBoxQueries(QueryInitialiser):
    """One learned box per query, the same for every image; the content starts at zero.

    Paper: SAM-DETR, Zhang et al. 2022, arXiv 2203.06883, Sec. 3.2 (the idea of DAB-DETR, arXiv
    2201.12329). The queries have no position of their own; the decoder embeds the boxes' centres in
    each layer.

    Args:
        embed_dims: Width.
        num_queries: Queries per image.

    Raises:
        ValueError: if num_queries is below 1.
    """

    makes = frozenset({Field.BOX})

    def __init__(self, embed_dims: int, num_queries: int = 300) -> None:
        super().__init__(embed_dims, num_queries)
        self.reference = nn.Embedding(num_queries, 4)

    def forward(
        self, memory: Memory, proposal_branches: BranchPair = None, targets: Targets | None = None
    ) -> Made:
        """See ``QueryInitialiser.forward``; only the memory's number of images is used."""
        bs = memory.tokens.shape[0]
        boxes: Tensor = self.reference.weight
        content = boxes.new_zeros(1, len(boxes), self.embed_dims)
        queries = Queries(content=content.expand(bs, -1, -1))
        return queries.with_reference(boxes.unsqueeze(0).expand(bs, -1, -1)), None
