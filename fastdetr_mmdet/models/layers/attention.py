"""Multi-head attention on projected inputs, and its projections."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ops.dropout import drop_and_mix
from ...ops.eager import on_plain_cpu


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    num_heads: int,
    bias: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Multi-head scaled dot-product attention on projected inputs.

    Head h owns the h-th chunk of the last dimension. Scores are scaled by 1 / sqrt(key_dims per
    head). Key and value widths may differ (Conditional DETR's keys are twice as wide).

    Shape:
        query: (bs, num_queries, key_dims)
        key: (bs, num_keys, key_dims)
        value: (bs, num_keys, value_dims)
        bias: broadcastable to (bs, num_heads, num_queries, num_keys): bool, True = attend; or
            float, added to the scores; or None.
        returns: (bs, num_queries, value_dims)
    """
    query, key, value = (
        x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (query, key, value)
    )  # (bs, num_heads, tokens, dims per head)
    if bias is not None and bias.is_floating_point() and bias.dtype != query.dtype:
        # A shift per row does not change the softmax, but avoids half precision's limit of -65504.
        bias = (bias - bias.amax(-1, keepdim=True)).to(query.dtype)
    if on_plain_cpu(query) and (dropout or query.shape[-1] != value.shape[-1]):
        # torch has no fused CPU kernel for these cases.
        output = _attend_plainly(query, key, value, bias, dropout)
    else:
        output = F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, dropout_p=dropout
        )
    return output.transpose(1, 2).flatten(2)


def _attend_plainly(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropout: float
) -> Tensor:
    """Attention step by step: (bs, num_heads, tokens, dims per head) each; returns the same."""
    scores = biased((query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1), bias)
    blind: Tensor | None = None  # fully masked rows return zeros, like torch's SDPA
    if bias is not None:
        nowhere = (~bias if bias.dtype == torch.bool else bias.isneginf()).all(-1, keepdim=True)
        blind = nowhere if nowhere.any() else None
    if blind is not None:
        scores = scores.masked_fill(blind, 0.0)
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    if blind is not None:
        weights = weights.masked_fill(blind, 0.0)
    return drop_and_mix(weights, value, dropout) if dropout else weights.to(value.dtype) @ value


def attention_weights(
    query: Tensor, key: Tensor, num_heads: int, bias: Tensor | None = None
) -> Tensor:
    """Attention weights of ``attend``, for the viewer.

    Args:
        query, key, num_heads, bias: As for ``attend``.

    Shape:
        returns: (bs, num_heads, num_queries, num_keys) float32, [0, 1], rows add up to 1
    """
    query, key = (x.float().unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (query, key))
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    return biased(scores, bias).softmax(-1)


def biased(scores: Tensor, bias: Tensor | None) -> Tensor:
    """Attention scores with ``attend``'s bias applied: a mask, a prior, or None."""
    if bias is None:
        return scores
    if bias.dtype == torch.bool:
        return scores.masked_fill(~bias, float("-inf"))
    return scores + bias


def attention_bias(attend_mask: Tensor | None, spatial_prior: Tensor | None) -> Tensor | None:
    """Combine an attention mask with an additive prior.

    Shape:
        attend_mask: (bs, 1, 1, num_tokens) bool, True = attend; or None.
        spatial_prior: (bs, num_heads or 1, num_queries, num_tokens), added to the scores; or None.
        returns: bool mask, float bias with -inf on padding, or None.
    """
    if spatial_prior is None:
        return attend_mask
    if attend_mask is None:
        return spatial_prior
    return spatial_prior.masked_fill(~attend_mask, float("-inf"))


def project(linear: nn.Linear, x: Tensor, num_heads: int) -> Tensor:
    """Project queries; there may be one per head, as from an aligner.

    Shape:
        x: (bs, num_queries, dims), or (bs, num_queries, num_heads, dims): then head h's chunk of
            the result is made from head h's query
        returns: (bs, num_queries, out_dims)
    """
    return _project(x, linear.weight, linear.bias, num_heads)


def _project(x: Tensor, weight: Tensor, bias: Tensor, num_heads: int) -> Tensor:
    if x.dim() == 3:
        return F.linear(x, weight, bias)
    weight = weight.unflatten(0, (num_heads, -1))  # (num_heads, chunk, dims)
    return torch.einsum("bqhc,hdc->bqhd", x, weight).flatten(2) + bias


def check_heads(owner: str, embed_dims: int, num_heads: int) -> None:
    """Raise ValueError when embed_dims cannot be split into num_heads."""
    if embed_dims % num_heads:
        raise ValueError(
            f"{owner}: embed_dims={embed_dims} is not divisible by num_heads={num_heads}; "
            "choose a num_heads that divides embed_dims."
        )


class InProjection(nn.Module):
    """Query, key and value projections as one (3 * dims, dims) matrix.

    One matrix, because Xavier's bound depends on its shape: so ``nn.MultiheadAttention``, and with
    it every official code, initialises plain attention.
    """

    def __init__(self, embed_dims: int) -> None:
        super().__init__()
        self.proj = nn.Linear(embed_dims, 3 * embed_dims)
        nn.init.xavier_uniform_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, num_heads: int = 1
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Project; one multiplication for both when ``query is key``.

        ``query`` may have one vector per head, (bs, num_queries, num_heads, dims); see ``project``.
        """
        dims = value.shape[-1]
        weight, bias = self.proj.weight, self.proj.bias
        projected_value = F.linear(value, weight[2 * dims :], bias[2 * dims :])
        if query is key:
            both = F.linear(query, weight[: 2 * dims], bias[: 2 * dims])
            return *both.chunk(2, dim=-1), projected_value  # type: ignore[return-value]
        return (
            _project(query, weight[:dims], bias[:dims], num_heads),
            F.linear(key, weight[dims : 2 * dims], bias[dims : 2 * dims]),
            projected_value,
        )


class OutProjection(nn.Linear):
    """Output projection of an attention: Xavier weight, zero bias."""

    def __init__(self, embed_dims: int) -> None:
        super().__init__(embed_dims, embed_dims)
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)
