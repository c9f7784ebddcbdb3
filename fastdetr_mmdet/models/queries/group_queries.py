"""Group DETR: several groups of queries, each matched one-to-one."""

from __future__ import annotations

from mmdet.registry import MODELS
from torch import nn

from ...structures import QueryGroup
from ..parts import Made
from .added_queries import AddedQueries, Given, join


@MODELS.register_module()
class GroupQueries(AddedQueries):
    """In training, groups of queries that do not attend to each other, each matched one-to-one.

    Paper: Group DETR, Chen et al. 2023, arXiv 2207.13085, Sec. 3.2.

    Every group has its own query initialiser with the same config: its own learned queries and, if
    two-stage, its own projection of the memory, whose proposals are matched within the group. All
    groups share the layers and the head; in the authors' DINO each group also has its own class and
    box branches for proposals. Losses are averaged over the groups. Prediction uses only the first
    group.

    Args:
        queries: Config of each group's query initialiser.
        embed_dims: Width.
        num_queries: Queries per image and group; None: as in ``queries``.
        num_groups: Groups, at least 1; the paper has 11.

    Raises:
        ValueError: if num_groups is below 1; as ``AddedQueries``.
    """

    def __init__(
        self,
        queries: dict,
        embed_dims: int,
        num_queries: int | None = None,
        num_groups: int = 11,
    ) -> None:
        super().__init__(queries, embed_dims, num_queries)
        if num_groups < 1:
            raise ValueError(f"GroupQueries: num_groups={num_groups} must be at least 1.")
        shared = dict(embed_dims=embed_dims, num_queries=self.num_queries)
        self.others = nn.ModuleList(
            MODELS.build(queries, default_args=shared) for _ in range(num_groups - 1)
        )

    def add(self, made: Made, given: Given) -> Made:
        """See ``AddedQueries``."""
        for other in self.others:
            group = QueryGroup("", 0)  # unnamed like the matching queries: more of their parts
            made = join(made, other(*given), group)
        return made
