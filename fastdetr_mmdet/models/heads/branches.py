"""Class and box branches of a head, by layer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import nn

from ..layers import MLP


class Branches(nn.ModuleList):
    """One branch per decoder layer, then the proposals' branch; a shared branch is stored once."""

    def __init__(self, branches: Iterable[nn.Module], shared_by: int = 1) -> None:
        super().__init__(branches)
        self.shared_by = shared_by

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int) and index >= 0:
            index = max(0, index - self.shared_by + 1)
        return super().__getitem__(index)


# Focal prior: every class starts with probability 0.01 (arXiv 1708.02002, Sec. 4.1).
PRIOR_LOGIT = -math.log((1 - 0.01) / 0.01)


def class_branch(embed_dims: int, num_classes: int) -> nn.Linear:
    """Class branch, initialised at the focal prior."""
    branch = nn.Linear(embed_dims, num_classes)
    nn.init.constant_(branch.bias, PRIOR_LOGIT)
    return branch


def box_branch(embed_dims: int, num_hidden: int, zero_init: bool) -> MLP:
    """Box branch; with zero_init boxes start at their reference (a point: w = h = 0.5)."""
    branch = MLP(embed_dims, embed_dims, 4, num_hidden + 1)
    if zero_init:
        last = branch[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return branch
