"""Base of query initialisers that add groups of queries in training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from mmdet.registry import MODELS
from torch import nn

from ...structures import Memory, QueryGroup, Targets
from ..contracts import contract
from ..parts import BranchPair, Field, Made, QueryInitialiser

# Arguments of a query initialiser in training.
Given = tuple[Memory, BranchPair, Targets]


class AddedQueries(QueryInitialiser):
    """Base class of query initialisers that wrap another one, whose queries are the matching ones.

    Weights of a model without this part load into the wrapped query initialiser.

    Args:
        queries: Config of the query initialiser of the matching queries.
        embed_dims: Width.
        num_queries: Matching queries per image; None: as in ``queries``.

    Raises:
        ValueError: if ``queries`` also adds groups, in an order that is not supported, or has a
            different num_queries.
    """

    outermost: ClassVar[bool] = False

    def __init__(self, queries: dict, embed_dims: int, num_queries: int | None = None) -> None:
        shared = dict(embed_dims=embed_dims)
        if num_queries is not None:
            shared["num_queries"] = num_queries
        inner = MODELS.build(queries, default_args=shared)
        super().__init__(embed_dims, inner.num_queries)
        name, other = type(self).__name__, type(inner).__name__
        if isinstance(inner, AddedQueries) and (inner.outermost or not self.outermost):
            remedy = f"leave one {name} out" if name == other else f"choose {name} or {other}"
            if inner.outermost and not self.outermost:
                remedy = f"put {other} around {name}"
            raise ValueError(f"{name}: queries={other} also adds groups of queries; {remedy}.")
        if num_queries is not None and inner.num_queries != num_queries:
            raise ValueError(
                f"{name}: num_queries={num_queries} and queries.num_queries={inner.num_queries} "
                "disagree; set one of them only."
            )
        self.queries = inner
        declared = contract("transformer.queries", inner)
        self.makes = declared.makes | {Field.MASK}
        self.level_limit = declared.level_limit
        self._register_load_state_dict_pre_hook(_nest_names, with_module=True)

    def forward(
        self, memory: Memory, proposal_branches: BranchPair = None, targets: Targets | None = None
    ) -> Made:
        """See ``QueryInitialiser.forward``; in training the groups follow the matching queries."""
        made = self.queries(memory, proposal_branches, targets)
        if self.training and targets is not None:
            return self.add(made, (memory, proposal_branches, targets))
        return made

    def add(self, made: Made, given: Given) -> Made:
        """Add groups to ``made``, the wrapped initialiser's result for the arguments ``given``."""
        raise NotImplementedError

    def position(self, reference_logits: Any) -> Any:
        """See ``QueryInitialiser.position``."""
        return self.queries.position(reference_logits)


def join(made: Made, others: Made, group: QueryGroup) -> Made:
    """Append another initialiser's queries and proposals as a group."""
    (queries, proposals), (more, more_proposals) = made, others
    queries = queries.with_group(more, replace(group, size=more.content.shape[1]))
    if proposals is not None and more_proposals is not None:
        size = more_proposals.boxes.shape[1]
        proposals = proposals.with_group(more_proposals, replace(group, size=size))
    return queries, proposals


def _nest_names(module: nn.Module, state_dict: dict, prefix: str, *_: Any) -> None:
    """Load weights of a model without this part, whose queries' keys lack one level."""
    own = {f"{prefix}{name}" for name in module.state_dict()}
    for key in [key for key in state_dict if key.startswith(prefix) and key not in own]:
        state_dict[f"{prefix}queries.{key.removeprefix(prefix)}"] = state_dict.pop(key)
