"""MLP, feed-forward block, and helpers that call layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...ops.dropout import ReLUDropout
from ...ops.eager import on_plain_cpu

# Tokens per chunk of ``by_tokens``, so that intermediate results stay in the CPU's cache.
_TOKENS = 2048


def by_tokens(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Call a token-wise function; on the CPU, without gradient, in chunks of tokens.

    Shape:
        inputs: (bs, num_tokens, dims) each
        returns: (bs, num_tokens, dims)
    """
    shape = inputs[0].shape
    if torch.is_grad_enabled() or not on_plain_cpu(inputs[0]) or shape[:2].numel() <= _TOKENS:
        return function(*inputs)
    pieces = zip(*(x.flatten(0, 1).split(_TOKENS) for x in inputs), strict=True)
    return torch.cat([function(*piece) for piece in pieces]).unflatten(0, shape[:2])


def call_layer(layer: Callable[..., Any], *inputs: Any, with_cp: bool = False) -> Any:
    """Call a layer; with ``with_cp`` keep only its inputs and recompute it for the gradient.

    Dropout repeats its random numbers, so results and gradients are the same without ``with_cp``.
    """
    if with_cp and torch.is_grad_enabled():
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)


def init_xavier(module: nn.Module) -> None:
    """Official transformer initialisation: Xavier-uniform matrices, other parameters untouched."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)


class MLP(nn.Sequential):
    """Linear layers with ReLU between them: (..., in_dims) -> (..., out_dims)."""

    def __init__(self, in_dims: int, hidden_dims: int, out_dims: int, num_layers: int) -> None:
        dims = [in_dims] + [hidden_dims] * (num_layers - 1) + [out_dims]
        layers: list[nn.Module] = []
        for i in range(num_layers):
            layers += [nn.Linear(dims[i], dims[i + 1]), nn.ReLU()]
        super().__init__(*layers[:-1])


class FeedForward(nn.Module):
    """Position-wise feed-forward block without the residual: (..., dims) -> (..., dims)."""

    def __init__(self, embed_dims: int, feedforward_channels: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(embed_dims, feedforward_channels)
        self.linear2 = nn.Linear(feedforward_channels, embed_dims)
        self.dropout = ReLUDropout(dropout)
        init_xavier(self)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        return self.linear2(self.dropout(self.linear1(x)))
