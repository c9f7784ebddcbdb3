"""Decoder of the DETR family: layers, reference refinement, level schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...structures import ConditionalQuery, DecoderOutput, Memory, Queries
from ...structures.boxes import add_reference
from ..layers import call_layer
from ..layers.positions import sine_embedding
from ..parts import Decoder, Field, Placed, contract
from .decoder_layer import DecoderLayer


@MODELS.register_module()
class DetrDecoder(Decoder):
    """A stack of decoder layers built from the parts that the config names.

    Paper: DETR, Carion et al. 2020, arXiv 2005.12872, appendix A.3; refinement: Deformable DETR,
    Zhu et al. 2021, arXiv 2010.04159, Sec. 4.2 and A.4 (the references entering layer 1 and later
    are detached). Queries without a position (``LearnedBoxQueries``) get the sine embedding of
    their reference point in its place, anew in each layer and without gradient (SAM-DETR, arXiv
    2203.06883, Sec. 3.4).

    Args:
        embed_dims: Width.
        num_layers: Decoder layers.
        num_heads: Heads of every part whose own config does not set it.
        feedforward_channels: Hidden width of the feed-forward blocks.
        dropout: Dropout of residual branches, feed-forward blocks and attention weights.
        self_attn: Self-attention config; None: ``MultiheadSelfAttention``.
        cross_attn: Cross-attention config; None: ``MultiheadCrossAttention``.
        aligner: Aligner config, or None.
        spatial_prior: Spatial prior config, or None.
        refine: Whether each layer moves the references for the next one.
        post_norm: Whether a LayerNorm, shared by all layers, is applied to the returned states.
        level_schedule: Per layer the index of the memory level that it sees; None: all levels.
        with_cp: Whether training keeps each layer's input only and computes the layer again for the
            gradient, which saves memory and costs this part a second forward pass.

    Raises:
        ValueError: if there is no layer, or level_schedule has not one entry per layer; in forward,
            if it refines and is not given box_branches.
    """

    def __init__(
        self,
        embed_dims: int,
        num_layers: int = 6,
        num_heads: int = 8,
        feedforward_channels: int = 2048,
        dropout: float = 0.1,
        self_attn: dict | None = None,
        cross_attn: dict | None = None,
        aligner: dict | None = None,
        spatial_prior: dict | None = None,
        refine: bool = False,
        post_norm: bool = True,
        level_schedule: Sequence[int] | None = None,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"{type(self).__name__}: num_layers={num_layers} must be at least 1.")
        if level_schedule is not None and len(level_schedule) != num_layers:
            raise ValueError(
                f"{type(self).__name__}: level_schedule={list(level_schedule)} has "
                f"{len(level_schedule)} entries for {num_layers} layers; give one level per layer."
            )
        self.num_layers = num_layers
        self.embed_dims = embed_dims
        self.refine = refine
        self.level_schedule = level_schedule
        self.with_cp = with_cp
        layers = [
            DecoderLayer(
                embed_dims,
                num_heads,
                feedforward_channels,
                dropout,
                self_attn or dict(type="MultiheadSelfAttention"),
                cross_attn or dict(type="MultiheadCrossAttention"),
                aligner,
                spatial_prior,
                layer_index=i,
            )
            for i in range(num_layers)
        ]
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(embed_dims) if post_norm else nn.Identity()
        if refine:
            self.reads = self.reads | {Field.POINT}
        # Whether the first layer's prior predicts the references.
        self.locates = any(Field.POINT in contract(*placed).makes for placed in layers[0].parts)

    @property
    def parts(self) -> list[Placed]:
        """The parts of all layers, with their keys in the config."""
        return [placed for layer in self.layers for placed in layer.parts]  # type: ignore

    def forward(
        self, queries: Queries, memory: Memory, box_branches: Sequence[nn.Module] | None = None
    ) -> DecoderOutput:
        """Decode; see ``Decoder.forward``."""
        if self.refine and box_branches is None:
            raise ValueError(
                f"{type(self).__name__} with refine=True needs the head's box branches; hand them "
                "over as box_branches."
            )
        hidden_states, references, boxes = [], [], []
        position: Tensor | None = None
        without_pos = queries.pos is None
        if self.locates:
            first: Any = self.layers[0]
            queries = first.locate(queries)
        for index, layer in enumerate(self.layers):
            if index == 0 or self.refine:
                position = self.embed_reference(queries)
                if without_pos and queries.reference is not None:
                    centre = queries.reference[..., :2].detach()
                    pos = sine_embedding(centre, self.embed_dims // 2).to(queries.content.dtype)
                    queries = replace(queries, pos=pos, embedded=None)
            if position is not None:
                scale = self.spatial_scale(index, queries.content)
                spatial = position if scale is None else position * scale
                queries = replace(queries, conditional=ConditionalQuery(spatial, scale))
            if queries.reference_logits is not None:
                references.append(queries.reference_logits)
            level = (
                memory if self.level_schedule is None else memory.level(self.level_schedule[index])
            )
            content = call_layer(layer, queries, level, with_cp=self.with_cp)
            queries = replace(queries, content=content, embedded=None)
            hidden_states.append(self.norm(queries.content))
            if self.refine and index + 1 < self.num_layers:
                delta = box_branches[index](hidden_states[-1])  # type: ignore[index]
                boxes.append(add_reference(delta, queries.reference_logits))
                queries = queries.with_reference(boxes[-1].detach())
        return DecoderOutput(torch.stack(hidden_states), tuple(references) or None, tuple(boxes))

    def embed_reference(self, queries: Queries) -> Tensor | None:
        """Embedding of the references, made once and again after each refinement; none here."""
        return None

    def spatial_scale(self, index: int, content: Tensor) -> Tensor | None:
        """What one layer multiplies the embedded references with to get its spatial query."""
        return None
