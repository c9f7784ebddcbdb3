"""Decoder of Conditional DETR: a spatial query conditioned on each layer's content."""

from __future__ import annotations

from mmdet.registry import MODELS
from torch import Tensor

from ...structures import Queries
from ..layers import MLP, init_xavier
from ..layers.positions import sine_embedding
from ..parts import Field
from .detr_decoder import DetrDecoder


@MODELS.register_module()
class ConditionalDecoder(DetrDecoder):
    """Decoder that gives each layer the spatial query ``p_q = T p_s``.

    Paper: Conditional DETR, Meng et al. 2021, arXiv 2108.06152, Sec. 3.3, Eq. 3.

    p_s is the sine embedding of the reference point; T is the diagonal transformation
    ``FFN(content)``, shared by all layers, of the content before the decoder's norm. The first
    layer, whose content is still zero, uses the identity, as in the official code.

    Args:
        embed_dims: Width; even: one half embeds x, the other y.
        self_attn: Default ``ConditionalSelfAttention``.
        cross_attn: Default ``ConditionalAttention``.
        **kwargs: As for ``DetrDecoder``.
    """

    reads = frozenset({Field.POINT})
    makes = frozenset({Field.SPATIAL})

    def __init__(
        self,
        embed_dims: int,
        self_attn: dict | None = None,
        cross_attn: dict | None = None,
        **kwargs,
    ) -> None:
        super().__init__(
            embed_dims,
            self_attn=self_attn or dict(type="ConditionalSelfAttention"),
            cross_attn=cross_attn or dict(type="ConditionalAttention"),
            **kwargs,
        )
        self.query_scale: MLP | None = None
        if self.num_layers > 1:  # the first layer uses the identity
            self.query_scale = MLP(embed_dims, embed_dims, embed_dims, num_layers=2)
            init_xavier(self.query_scale)

    def embed_reference(self, queries: Queries) -> Tensor:
        """Sine embedding of the reference centres, (bs, num_queries, embed_dims)."""
        assert queries.reference is not None
        embedded = sine_embedding(queries.reference[..., :2], num_feats=self.embed_dims // 2)
        return embedded.to(queries.content.dtype)

    def spatial_scale(self, index: int, content: Tensor) -> Tensor | None:
        """T of Eq. 3, an MLP of the content; None, the identity, in the first layer."""
        if index == 0 or self.query_scale is None:
            return None
        return self.query_scale(content)
