"""Padding mask and spatial prior folded into the one bias that attention takes."""

from __future__ import annotations

from torch import Tensor


def attention_bias(attend_mask: Tensor | None, spatial_prior: Tensor | None) -> Tensor | None:
    """Combine what may be attended to with an additive prior.

    Shape:
        attend_mask: (bs, 1, 1, num_tokens) bool, True where attention may look; or None.
        spatial_prior: (bs, num_heads or 1, num_queries, num_tokens), added to the scores; or None.
        returns: bool mask, float bias with -inf on padding, or None.
    """
    if spatial_prior is None:
        return attend_mask
    if attend_mask is None:
        return spatial_prior
    return spatial_prior.masked_fill(~attend_mask, float("-inf"))
