"""H-DETR: one more group of queries, matched one-to-many."""

from __future__ import annotations

from mmdet.registry import MODELS

from ...structures import QueryGroup
from ..parts import Made
from .added_queries import AddedQueries, Given, join


@MODELS.register_module()
class HybridQueries(AddedQueries):
    """In training, add a second group of queries in which every object is matched several times.

    Paper: H-DETR, Jia et al. 2023, arXiv 2207.13080, Sec. 3.2, hybrid branch scheme.

    The two groups do not attend to each other and share layers and head. The second one has its own
    query initialiser with the same config. If that is two-stage, its proposals are matched
    one-to-many as well, as in Relation-DETR (arXiv 2407.11699); H-DETR takes the next best
    proposals instead. Do not combine it with denoising. Prediction uses only the first group.

    Args:
        queries: Config of the query initialiser of both groups.
        embed_dims: Width.
        num_queries: Matching queries per image; None: as in ``queries``.
        num_extra: Queries per image of the second group.
        repeats: Matches per object in the second group.
        weight: Factor of the second group's losses, above 0.

    Raises:
        ValueError: if an argument is out of range; as ``AddedQueries``.
    """

    def __init__(
        self,
        queries: dict,
        embed_dims: int,
        num_queries: int | None = None,
        num_extra: int = 1500,
        repeats: int = 6,
        weight: float = 1.0,
    ) -> None:
        super().__init__(queries, embed_dims, num_queries)
        if num_extra < 1 or repeats < 1 or weight <= 0:
            raise ValueError(
                f"HybridQueries: num_extra={num_extra} and repeats={repeats} must be at least 1 "
                f"and weight={weight} above 0."
            )
        self.extra = MODELS.build(
            dict(queries, num_queries=num_extra), default_args=dict(embed_dims=embed_dims)
        )
        self.group = QueryGroup("hybrid", num_extra, repeats=repeats, weight=weight)

    def add(self, made: Made, given: Given) -> Made:
        """See ``AddedQueries``."""
        return join(made, self.extra(*given), self.group)
