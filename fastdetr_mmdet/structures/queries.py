"""Object queries, what parts attach to them, and what a decoder returns."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from .boxes import at_least_float32


@dataclass(frozen=True)
class SalientPoints:
    """What an aligner found for each query and head (SAM-DETR).

    Shape:
        content: (bs, num_queries, num_heads, embed_dims), features at the points, re-weighted.
        pos: (bs, num_queries, num_heads, embed_dims), embedding of the points, re-weighted.
        points: (bs, num_queries, num_heads, 2) (x, y), normalised to the un-padded image.
        scales: (bs, num_queries, num_heads, 2), how fast a Gaussian at the point falls off along x
            and y, before squaring; or None where the aligner was not asked for them.
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
        scale: (bs, num_queries, embed_dims), the transformation T that ``spatial`` contains; or
            None where it is the identity.
    """

    spatial: Tensor
    scale: Tensor | None = None


@dataclass(frozen=True)
class QueryGroup:
    """Queries that training adds behind the matching ones, and which objects they answer for.

    Args:
        name: Prefix of its losses.
        size: Queries per image.
        copies: How often each object is in the group; what its losses are divided by, beside the
            number of objects.
        query_index: Queries that answer for an object, into (bs, size) flattened; none twice. All
            others are background.
        object_index: Their objects, into the batch's concatenated objects.

    Shape:
        query_index, object_index: (num_pairs,) long
    """

    name: str
    size: int
    copies: int
    query_index: Tensor
    object_index: Tensor


@dataclass(frozen=True)
class Queries:
    """Object queries on their way through a decoder.

    Shape:
        content: (bs, num_queries, embed_dims).
        pos: (bs, num_queries, embed_dims), positional part, added inside attention only; or None.
        reference_logits: (bs, num_queries, 2 or 4), (cx, cy[, w, h]) before the sigmoid; or None.
            Kept beside ``reference`` so that refinement never goes through sigmoid and back.
        reference: sigmoid of ``reference_logits``: normalised to the un-padded image, [0, 1].
        previous_reference: the reference of the decoder layer before, (bs, num_queries, 2 or 4); or
            None where that was the same.
        conditional: the spatial query of Conditional DETR, set by ``ConditionalDecoder``; or None.
        embedded: (bs, num_queries, embed_dims), LayerNorm(content + pos) of the decoder layer's
            input, from which spatial prior and scale selection are predicted (SMCA); or None.
        salient: what the aligner found, set by it; or None.
        groups: what training adds behind the matching queries, in order.
        attend_mask: (num_queries, num_queries) bool, True where a query (row) may look at another
            (column); or None: everywhere. A self-attention that adds to the scores may hand it on
            as a bias, (bs, num_heads, num_queries, num_queries).
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

    @property
    def located(self) -> Tensor:
        """What an attention asks with: content plus position.

        Shape:
            returns: (bs, num_queries, embed_dims), or, where an aligner has found salient points,
                one per head: (bs, num_queries, num_heads, embed_dims).
        """
        if self.salient is not None:
            return self.salient.content + self.salient.pos
        return self.content if self.pos is None else self.content + self.pos

    def with_reference(self, reference_logits: Tensor) -> Queries:
        """The same queries at other references; the sigmoid is taken in float32 at least."""
        logits = at_least_float32(reference_logits)
        return replace(self, reference_logits=logits, reference=logits.sigmoid())

    def with_content(self, content: Tensor) -> Queries:
        """The same queries with other content."""
        return replace(self, content=content)

    def with_salient(self, salient: SalientPoints) -> Queries:
        """The same queries with what an aligner found."""
        return replace(self, salient=salient)


@dataclass(frozen=True)
class Proposals:
    """Encoder proposals of a two-stage model, supervised like one more decoder layer.

    Shape:
        cls_scores: (bs, num_tokens, num_classes) logits.
        boxes: (bs, num_tokens, 4), normalised (cx, cy, w, h); ones where a token is no valid
            proposal.
    """

    cls_scores: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class DecoderOutput:
    """What a transformer hands to the head.

    Shape:
        hidden_states: (num_decoder_layers, bs, num_queries, embed_dims), normed if the decoder is.
        reference_logits: per decoder layer the reference that ENTERED it,
            (bs, num_queries, 2 or 4) before the sigmoid; or None (plain DETR).
        box_logits: of the first layers the boxes that the decoder computed from the head's box
            branches to refine its references, (bs, num_queries, 4) before the sigmoid; empty where
            it does not refine.
        proposals: of the encoder, in two-stage models; else None.
        groups: of the queries that training added behind the matching ones.
    """

    hidden_states: Tensor
    reference_logits: tuple[Tensor, ...] | None = None
    box_logits: tuple[Tensor, ...] = ()
    proposals: Proposals | None = None
    groups: tuple[QueryGroup, ...] = ()
