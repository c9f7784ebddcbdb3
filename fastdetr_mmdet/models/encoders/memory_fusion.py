"""Fusion of the outputs of all encoder layers (Stable-DINO)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..layers import by_tokens, init_xavier


class MemoryFusion(nn.Module):
    """Project each token's input and outputs of all encoder layers to one vector, with a norm.

    Paper: Stable-DINO, Liu et al. 2023, arXiv 2304.04742, "memory fusion".

    Args:
        embed_dims: Width.
        num_layers: Encoder layers.
    """

    def __init__(self, embed_dims: int, num_layers: int) -> None:
        super().__init__()
        self.proj = nn.Linear((num_layers + 1) * embed_dims, embed_dims)
        self.norm = nn.LayerNorm(embed_dims)
        init_xavier(self)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Per layer (bs, num_tokens, embed_dims), the first layer's input first -> the same."""
        return by_tokens(lambda *tokens: self.norm(self.proj(torch.cat(tokens, dim=-1))), *states)
