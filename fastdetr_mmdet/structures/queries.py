"""Object queries, data that parts attach to them, and decoder output."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .boxes import at_least_float32
from .memory import Memory


@dataclass(frozen=True)
class SalientPoints:
    """Salient points that an aligner found for each query and head (SAM-DETR).

    Shape:
        content: (bs, num_queries, num_heads, embed_dims), features at the points, re-weighted.
        pos: (bs, num_queries, num_heads, embed_dims), embedding of the points, re-weighted.
        points: (bs, num_queries, num_heads, 2) (x, y), normalised to the un-padded image.
        scales: (bs, num_queries, num_heads, 2), square roots of a Gaussian's factors along x and y;
            None without ``predict_scales``.
    """

    content: Tensor
    pos: Tensor
    points: Tensor
    scales: Tensor | None = None


@dataclass(frozen=True)
class ConditionalQuery:
    """Spatial query of Conditional DETR, Eq. 3.

    Shape:
        spatial: (bs, num_queries, embed_dims), p_q = T p_s.
        scale: (bs, num_queries, embed_dims), the transformation T that ``spatial`` contains; None:
            identity.
    """

    spatial: Tensor
    scale: Tensor | None = None


@dataclass(frozen=True)
class QueryGroup:
    """Queries of a training step that share one set of losses.

    The first group has no name; its first part are the matching queries, the only ones in
    prediction.

    Args:
        name: Prefix of the losses' names.
        size: Queries per image.
        parts: Number of equal parts, which do not attend to each other; each is matched with all
            objects.
        repeats: Copies of each object in a part (one-to-many by repetition).
        weight: Factor of the losses.
        pairs: Matches that are known beforehand: unique indices of queries into (bs, size)
            flattened, and of their objects into the batch's objects; all other queries are
            background. None: each part is matched.

    Shape:
        pairs: (num_pairs,) long, twice
    """

    name: str
    size: int
    parts: int = 1
    repeats: int = 1
    weight: float = 1.0
    pairs: tuple[Tensor, Tensor] | None = None

    @property
    def copies(self) -> int:
        """Copies of each object in the group, by which its losses are divided."""
        return self.parts * self.repeats


def _add_group(
    groups: tuple[QueryGroup, ...], size: int, group: QueryGroup
) -> tuple[QueryGroup, ...]:
    """Append a group; ``size`` queries without groups become the matching group."""
    *before, last = groups or (QueryGroup("", size),)
    if last.name != group.name:
        return (*before, last, group)
    last = replace(last, size=last.size + group.size, parts=last.parts + group.parts)
    return (*before, last)


@dataclass(frozen=True)
class Queries:
    """Object queries on their way through a decoder.

    Shape:
        content: (bs, num_queries, embed_dims).
        pos: (bs, num_queries, embed_dims), positional part, added inside attention only; or None.
        reference_logits: (bs, num_queries, 2 or 4), (cx, cy[, w, h]) before the sigmoid; or None.
            Kept with ``reference`` so that refinement needs no inverse sigmoid.
        reference: sigmoid of ``reference_logits``: normalised to the un-padded image, [0, 1].
        previous_reference: the reference in the decoder layer before, (bs, num_queries, 2 or 4);
            None if unchanged.
        conditional: the spatial query of Conditional DETR, set by ``ConditionalDecoder``; or None.
        embedded: (bs, num_queries, embed_dims), LayerNorm(content + pos) of the decoder layer's
            input, read by spatial prior and scale selection (SMCA); or None.
        salient: set by the aligner; or None.
        groups: groups of the queries, in order; empty: all are matching queries.
        attend_mask: (num_queries, num_queries) bool, True where a query (row) may attend to another
            (column); None: everywhere. A self-attention that adds to scores may turn it into a
            bias, (bs, num_heads, num_queries, num_queries).
        class_logits: (bs, n, num_classes), detached logits to which every layer adds the class
            logits of the first n queries; or None.
    """

    content: Tensor
    pos: Tensor | None = None
    reference_logits: Tensor | None = None
    reference: Tensor | None = None
    previous_reference: Tensor | None = None
    conditional: ConditionalQuery | None = None
    embedded: Tensor | None = None
    salient: SalientPoints | None = None
    groups: tuple[QueryGroup, ...] = ()
    attend_mask: Tensor | None = None
    class_logits: Tensor | None = None

    @property
    def located(self) -> Tensor:
        """Content plus position.

        Shape:
            returns: (bs, num_queries, embed_dims), or, with salient points, one per head: (bs,
                num_queries, num_heads, embed_dims).
        """
        if self.salient is not None:
            return self.salient.content + self.salient.pos
        return self.content if self.pos is None else self.content + self.pos

    def with_reference(self, reference_logits: Tensor) -> Queries:
        """Replace the references; the sigmoid is computed in float32 at least."""
        logits = at_least_float32(reference_logits)
        return replace(self, reference_logits=logits, reference=logits.sigmoid())

    def with_content(self, content: Tensor) -> Queries:
        """Replace the content."""
        return replace(self, content=content)

    def with_salient(self, salient: SalientPoints) -> Queries:
        """Set the salient points."""
        return replace(self, salient=salient)

    def with_group(self, others: Queries, group: QueryGroup, see_first: bool = False) -> Queries:
        """Append other queries as a group, or to the last group if it has the same name.

        The others attend to their own part of the group and, with ``see_first``, to the matching
        queries.
        """
        num_queries = self.content.shape[1]
        groups = _add_group(self.groups, num_queries, group)
        if not group.size:
            return replace(self, groups=groups)
        part = torch.arange(group.parts, device=self.content.device)
        part = part.repeat_interleave(group.size // group.parts)
        mask = torch.block_diag(
            torch.ones(num_queries, num_queries, dtype=torch.bool, device=part.device)
            if self.attend_mask is None
            else self.attend_mask,
            part.unsqueeze(1) == part,
        )
        mask[num_queries:, : groups[0].size // groups[0].parts] |= see_first
        pos, logits = self.pos, self.reference_logits
        if pos is not None and others.pos is not None:
            pos = torch.cat([pos, others.pos], dim=1)
        classes = self.class_logits
        if classes is not None and others.class_logits is not None:
            classes = torch.cat([classes, others.class_logits], dim=1)
        joined = replace(
            self,
            content=torch.cat([self.content, others.content], dim=1),
            pos=pos,
            groups=groups,
            attend_mask=mask,
            class_logits=classes,
        )
        if logits is None or others.reference_logits is None:
            return joined
        return joined.with_reference(torch.cat([logits, others.reference_logits], dim=1))


@dataclass(frozen=True)
class Proposals:
    """Encoder proposals of a two-stage model, supervised like one more decoder layer.

    Shape:
        cls_scores: (bs, num_tokens, num_classes) logits.
        boxes: (bs, num_tokens, 4), normalised (cx, cy, w, h); ones if a token is not a valid
            proposal.
        groups: as in ``Queries``, if query initialisers have proposals of their own.
        priors: (bs, num_tokens, 4), centre and size (x, y, w, h) of each token's cell, normalised
            to the un-padded image; None if these are not the proposals of all tokens. Like the next
            two, shared by all query initialisers.
        candidates: (bs, num_tokens) bool, False if a token is not a valid proposal; or None, like
            ``priors``.
        level_sizes: number of tokens of each level.
    """

    cls_scores: Tensor
    boxes: Tensor
    groups: tuple[QueryGroup, ...] = ()
    priors: Tensor | None = None
    candidates: Tensor | None = None
    level_sizes: tuple[int, ...] = ()

    def with_group(self, others: Proposals, group: QueryGroup) -> Proposals:
        """Append other proposals; see ``Queries.with_group``."""
        return replace(
            self,
            cls_scores=torch.cat([self.cls_scores, others.cls_scores], dim=1),
            boxes=torch.cat([self.boxes, others.boxes], dim=1),
            groups=_add_group(self.groups, self.boxes.shape[1], group),
        )


@dataclass(frozen=True)
class DecoderOutput:
    """Output of a transformer for the head.

    Shape:
        hidden_states: (num_decoder_layers, bs, num_queries, embed_dims), normed if the decoder has
            a norm.
        reference_logits: per decoder layer the reference that ENTERED it,
            (bs, num_queries, 2 or 4) before the sigmoid; or None (plain DETR).
        box_logits: boxes of the first layers, which a refining decoder computed with the head's box
            branches, (bs, num_queries, 4) before the sigmoid; else empty.
        proposals: the encoder's, in two-stage models; else None.
        groups: the queries' groups.
        class_logits: as in ``Queries``.
        memory: the encoder's output; or None.
        one_to_many: in training, states for one-to-many matching, in the shape of hidden_states; or
            None.
    """

    hidden_states: Tensor
    reference_logits: tuple[Tensor, ...] | None = None
    box_logits: tuple[Tensor, ...] = ()
    proposals: Proposals | None = None
    groups: tuple[QueryGroup, ...] = ()
    class_logits: Tensor | None = None
    memory: Memory | None = None
    one_to_many: Tensor | None = None
