"""Decoder of the DETR family: layers, reference refinement, level schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...structures import ConditionalQuery, DecoderOutput, Memory, Queries
from ...structures.boxes import add_reference
from ..contracts import contract
from ..layers import MLP, call_layer, init_xavier
from ..layers.positions import sine_embedding
from ..parts import Decoder, Field, Placed
from .decoder_layer import DecoderLayer


@MODELS.register_module()
class DetrDecoder(Decoder):
    """A stack of decoder layers built from the parts that the config names.

    Paper: DETR, Carion et al. 2020, arXiv 2005.12872, appendix A.3; refinement: Deformable DETR,
    Zhu et al. 2021, arXiv 2010.04159, Sec. 4.2 and A.4 (the references entering layer 1 and later
    are detached); look forward twice, positions of queries and the norm: DINO, Zhang et al. 2022,
    arXiv 2203.03605, Sec. 3.5, and DAB-DETR, Liu et al. 2022, arXiv 2201.12329, Sec. 4.2; mixed
    supervision: MS-DETR, Zhao et al. 2024, arXiv 2401.03989, Sec. 3.2, without the optional
    feed-forward block after cross-attention. Queries without a position (``LearnedBoxQueries``) get
    the sine embedding of their reference point in each layer, without gradient (SAM-DETR, arXiv
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
        refine: Whether each layer refines the references for the next one.
        look_forward_twice: With refine, whether the loss of a layer's box also trains the layer
            before, which made its reference: the reference is detached for attention, but not for
            the box. Predictions do not change.
        refine_normed: True: references are refined from the returned states, after the norm, so a
            layer's box is the next layer's reference. False, as in DINO: from the states before the
            norm.
        reference_eps: References are clipped to [reference_eps, 1 - reference_eps] before they are
            refined; in [0, 0.5); 1e-3 in DINO's official code.
        reference_pos: Position of a query in every layer. None: from the query initialiser.
            'image': an MLP of the sine embedding of its reference box. 'canvas': the same with the
            box relative to the padded batch, as in DINO's official code, so it depends on the
            padding.
        reference_feats: Sine features per coordinate of reference_pos, even; None: embed_dims / 2,
            as in DINO's published weights (later versions of mmdet train with embed_dims).
        post_norm: Whether a LayerNorm, shared by all layers, is applied to the returned states.
        level_schedule: Per layer the index of the memory level that it sees; None: all levels.
        mixed_supervision: Whether cross-attention comes before self-attention, and the states
            between them are trained one-to-many (MS-DETR; see ``FastDETRHead``).
        with_cp: Gradient checkpointing: training recomputes each layer in the backward pass.

    Raises:
        ValueError: if num_layers is below 1, level_schedule does not have one entry per layer, a
            reference_ argument is out of range, or look_forward_twice or reference_feats would have
            no effect; in forward, if it refines without box_branches.
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
        look_forward_twice: bool = False,
        refine_normed: bool = True,
        reference_eps: float = 0.0,
        reference_pos: Literal["image", "canvas"] | None = None,
        reference_feats: int | None = None,
        post_norm: bool = True,
        level_schedule: Sequence[int] | None = None,
        mixed_supervision: bool = False,
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
        if reference_pos not in (None, "image", "canvas"):
            raise ValueError(
                f"{type(self).__name__}: reference_pos={reference_pos!r} must be 'image', 'canvas' "
                "or None."
            )
        if not 0 <= reference_eps < 0.5 or (reference_feats or 2) % 2:
            raise ValueError(
                f"{type(self).__name__}: reference_eps={reference_eps} must be in [0, 0.5) and "
                f"reference_feats={reference_feats} even."
            )
        if look_forward_twice and not refine:
            raise ValueError(
                f"{type(self).__name__}: look_forward_twice=True needs refine=True, without which "
                "no layer moves the references."
            )
        if reference_feats is not None and reference_pos is None:
            raise ValueError(
                f"{type(self).__name__}: reference_feats={reference_feats} is for reference_pos; "
                "set that to 'image' or 'canvas', or leave reference_feats out."
            )
        self.num_layers = num_layers
        self.embed_dims = embed_dims
        self.refine = refine
        self.look_forward_twice = look_forward_twice
        self.refine_normed = refine_normed
        self.reference_pos = reference_pos
        self.most_logit = math.log((1 - reference_eps) / reference_eps) if reference_eps else None
        self.level_schedule = level_schedule
        self.mixed_supervision = mixed_supervision
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
                cross_first=mixed_supervision,
            )
            for i in range(num_layers)
        ]
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(embed_dims) if post_norm else nn.Identity()
        if refine:
            self.reads = self.reads | {Field.POINT}
        self.reference_feats = reference_feats or embed_dims // 2
        self.ref_point_head: MLP | None = None
        if reference_pos is not None:
            self.reads = self.reads | {Field.BOX}
            in_dims = 4 * self.reference_feats
            self.ref_point_head = MLP(in_dims, embed_dims, embed_dims, num_layers=2)
            init_xavier(self.ref_point_head)
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
                f"{type(self).__name__} with refine=True needs the head's box branches; pass them "
                "as box_branches."
            )
        hidden_states, one_to_many, references, boxes = [], [], [], []
        position: Tensor | None = None
        moved: Tensor | None = None  # the reference, with its gradient to the layer before
        without_pos = queries.pos is None and self.reference_pos is None
        if self.locates:
            first: Any = self.layers[0]
            queries = first.locate(queries)
        for index, layer in enumerate(self.layers):
            if index == 0 or self.refine:
                position = self.embed_reference(queries)
                if self.ref_point_head is not None:
                    queries = replace(queries, pos=self._locate_boxes(queries, memory))
                if without_pos and queries.reference is not None:
                    centre = queries.reference[..., :2].detach()
                    pos = sine_embedding(centre, self.embed_dims // 2).to(queries.content.dtype)
                    queries = replace(queries, pos=pos, embedded=None)
            if position is not None:
                scale = self.spatial_scale(index, queries.content)
                spatial = position if scale is None else position * scale
                queries = replace(queries, conditional=ConditionalQuery(spatial, scale))
            if queries.reference_logits is not None:
                references.append(queries.reference_logits if moved is None else moved)
            level = (
                memory if self.level_schedule is None else memory.level(self.level_schedule[index])
            )
            content, after_cross = call_layer(layer, queries, level, with_cp=self.with_cp)
            if self.mixed_supervision and self.training:
                one_to_many.append(self.norm(after_cross))
            queries = replace(queries, content=content, embedded=None)
            hidden_states.append(self.norm(queries.content))
            if self.refine and index + 1 < self.num_layers:
                state = hidden_states[-1] if self.refine_normed else content
                delta = box_branches[index](state)  # type: ignore[index]
                start = queries.reference_logits
                if start is not None and self.most_logit is not None:
                    start = start.clamp(-self.most_logit, self.most_logit)
                box = add_reference(delta, start)
                if self.refine_normed:
                    boxes.append(box if moved is None else add_reference(delta, moved))
                if self.look_forward_twice:
                    moved = box
                queries = replace(queries, previous_reference=queries.reference)
                queries = queries.with_reference(box.detach())
        return DecoderOutput(
            torch.stack(hidden_states),
            tuple(references) or None,
            tuple(boxes),
            groups=queries.groups,
            one_to_many=torch.stack(one_to_many) if one_to_many else None,
        )

    def _locate_boxes(self, queries: Queries, memory: Memory) -> Tensor:
        """Position of each query from its reference box, (bs, num_queries, embed_dims)."""
        boxes = queries.reference
        assert boxes is not None and self.ref_point_head is not None
        if self.reference_pos == "canvas":
            boxes = boxes * memory.valid_ratios[:, :1].to(boxes.dtype).repeat(1, 1, 2)
        embedded = sine_embedding(boxes, self.reference_feats)
        return self.ref_point_head(embedded.to(queries.content.dtype))

    def embed_reference(self, queries: Queries) -> Tensor | None:
        """Embedding of the references, made at the start and after each refinement; here None."""
        return None

    def spatial_scale(self, index: int, content: Tensor) -> Tensor | None:
        """Factor of the embedded references in one layer's spatial query."""
        return None
