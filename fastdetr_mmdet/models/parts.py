"""Base classes of a transformer's parts, one per role; contracts.py checks that parts fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from torch import Tensor, nn

from ..structures import DecoderOutput, Memory, Proposals, Queries, Targets
from .layers import check_heads

# The head's class and box branch for encoder proposals; None if there are no proposals.
BranchPair = tuple[nn.Module, nn.Module] | None
# What a query initialiser makes.
Made = tuple[Queries, Proposals | None]


class Field(Enum):
    """Fields that parts read and make. The values name them in messages."""

    POINT = "reference points"  # centre of Queries.reference
    BOX = "reference boxes"  # with width and height; implies POINT
    SPATIAL = "the conditional spatial query"
    SALIENT = "salient points"
    PRIOR = "a spatial prior"
    EMBEDDED = "the layer's normed input query"  # made by the decoder layer if a part reads it
    POS = "the memory's positions"  # always exists
    PROPOSALS = "encoder proposals"
    CLASSES = "classes of encoder proposals"
    MASK = "the mask of groups of queries"  # Queries.attend_mask
    DENSE = "encoder proposals of all tokens"
    LOGITS = "class logits that a layer's classes are added to"


class Part(nn.Module):
    """A part that a config names; its declarations decide which parts it fits.

    Instances may override a declaration of their class that depends on arguments.

    Attributes:
        role: Name of the role, for messages and lists.
        reads: Fields that the part needs; ``PRIOR`` and ``POS`` only if they exist.
        makes: Fields that the part makes for other parts.
        num_levels: Feature levels that the part works on; None: any number.
        level_limit: Maximum number of feature levels, and the argument that sets it; None: any
            number.
        num_heads: Attention heads; None: any number.
    """

    role: ClassVar[str] = "part"
    reads: frozenset[Field] = frozenset()
    makes: frozenset[Field] = frozenset()
    num_levels: int | None = None
    level_limit: tuple[int, str] | None = None
    num_heads: int | None = None


class Transformer(Part):
    """Base class of transformers.

    Attributes:
        embed_dims: Width of all parts.
        queries: The query initialiser.
        decoder: The decoder.
    """

    role = "transformer"
    embed_dims: int
    queries: nn.Module
    decoder: nn.Module

    @property
    def parts(self) -> list[Placed]:
        """This transformer and all its parts, with their config keys."""
        raise NotImplementedError

    def forward(
        self,
        memory: Memory,
        box_branches: Sequence[nn.Module] | None = None,
        proposal_branches: BranchPair = None,
        targets: Targets | None = None,
    ) -> DecoderOutput:
        """Encode, make queries, decode.

        Args:
            memory: Flattened feature maps.
            box_branches: The head's box branch of each layer; needed when the decoder refines.
            proposal_branches: The head's class and box branch for encoder proposals, if two-stage.
            targets: Objects of the batch, in training.
        """
        raise NotImplementedError


class Encoder(Part):
    """Base class of encoders."""

    role = "encoder"
    reads = frozenset({Field.POS})

    def forward(self, memory: Memory) -> Memory:
        """Encode.

        Shape:
            returns: tokens (bs, num_tokens, embed_dims), all else unchanged.
        """
        raise NotImplementedError


class QueryInitialiser(Part):
    """Base class of query initialisers.

    Args:
        embed_dims: Width.
        num_queries: Queries per image.

    Raises:
        ValueError: if num_queries is below 1.
    """

    role = "query initialiser"

    def __init__(self, embed_dims: int, num_queries: int = 300) -> None:
        super().__init__()
        if num_queries < 1:
            raise ValueError(
                f"{type(self).__name__}: num_queries={num_queries} must be at least 1."
            )
        self.embed_dims = embed_dims
        self.num_queries = num_queries

    def forward(
        self, memory: Memory, proposal_branches: BranchPair = None, targets: Targets | None = None
    ) -> Made:
        """Queries for every image of the memory.

        Args:
            memory: What the encoder made.
            proposal_branches: The head's class and box branch for encoder proposals; None where
                this part does not declare ``PROPOSALS`` in ``makes``.
            targets: Objects of the batch, in training.

        Shape:
            returns: queries with content (bs, num_queries, embed_dims), pos alike or None,
                reference (bs, num_queries, 2 or 4) or None; proposals or None.
        """
        raise NotImplementedError

    def position(self, reference_logits: Tensor) -> Tensor:
        """Positions of other queries, made like this part's own, from their boxes.

        Shape:
            reference_logits: (bs, num_queries, 4) (cx, cy, w, h) before the sigmoid
            returns: (bs, num_queries, embed_dims)
        """
        raise NotImplementedError


class Decoder(Part):
    """Base class of decoders.

    Attributes:
        num_layers: Number of decoder layers; the head predicts from each.
        level_schedule: Per layer the index of the memory level that it sees; None: all levels.
    """

    role = "decoder"
    num_layers: int
    level_schedule: Sequence[int] | None = None

    @property
    def parts(self) -> list[Placed]:
        """The parts of all layers, with their config keys."""
        return []

    def forward(
        self, queries: Queries, memory: Memory, box_branches: Sequence[nn.Module] | None = None
    ) -> DecoderOutput:
        """Decode.

        Args:
            queries: Queries from the query initialiser.
            memory: What the encoder made.
            box_branches: One module per layer, (bs, num_queries, embed_dims) -> 4 box deltas;
                needed when refining.
        """
        raise NotImplementedError


class LayerPart(Part):
    """Base class of parts of a decoder layer; the layer passes these arguments.

    Args:
        embed_dims: Width.
        num_heads: Heads; must divide embed_dims.
        dropout: Dropout of attention weights; for self-attention and cross-attention only.
        layer_index: Index of the part's decoder layer.

    Raises:
        ValueError: if embed_dims is not divisible by num_heads.
        TypeError: if there is an unknown argument.
    """

    num_heads: int

    def __init__(
        self,
        embed_dims: int,
        num_heads: int = 8,
        dropout: float = 0.1,
        layer_index: int = 0,
        **unknown,
    ) -> None:
        super().__init__()
        if unknown:  # Python's message would name this base class
            raise TypeError(f"{type(self).__name__} has no argument {', '.join(unknown)}.")
        check_heads(type(self).__name__, embed_dims, num_heads)
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.dropout = dropout
        self.layer_index = layer_index


class SelfAttention(LayerPart):
    """Base class of self-attentions; those that apply ``Queries.attend_mask`` read ``MASK``."""

    role = "self-attention"

    def forward(self, queries: Queries) -> Tensor:
        """Attend among the queries of each image.

        Shape:
            returns: (bs, num_queries, embed_dims), without the residual.
        """
        raise NotImplementedError


class Aligner(LayerPart):
    """Base class of aligners, which sit between self-attention and cross-attention.

    Args:
        predict_scales: Whether a spatial prior needs ``SalientPoints.scales``.
        **context: As for ``LayerPart``.
    """

    role = "aligner"
    makes = frozenset({Field.SALIENT})

    def __init__(self, embed_dims: int, predict_scales: bool = False, **context) -> None:
        super().__init__(embed_dims, **context)
        self.predict_scales = predict_scales

    def forward(self, queries: Queries, memory: Memory) -> Queries:
        """Find the salient points of each query.

        Shape:
            returns: the queries with ``salient`` set, ``content`` unchanged.
        """
        raise NotImplementedError


class SpatialPrior(LayerPart):
    """Base class of spatial priors.

    A prior that reads ``SALIENT`` is called after the aligner, other priors with the layer's input.
    If the first layer's prior makes ``POINT``, its ``locate`` is called first.
    """

    role = "spatial prior"
    makes = frozenset({Field.PRIOR})

    def locate(self, queries: Queries) -> Queries:
        """Set reference points, predicted for all layers."""
        raise NotImplementedError

    def forward(self, queries: Queries, memory: Memory) -> Tensor:
        """Compute the term that is added to attention scores.

        Shape:
            returns: (bs, num_heads or 1, num_queries, num_tokens)
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Explanation:
    """What a cross-attention attends to, for every query.

    Shape:
        weights: (bs, num_heads, num_queries, num_tokens), attention weights in [0, 1], 0 on
            padding; they add up to 1 over the tokens of all levels.
        level_weights: (bs, num_queries, num_levels), weight of each level in scale selection;
            already part of ``weights``.
        points: (bs, num_queries, num_heads, num_levels, num_points, 2), (x, y) of the sampling
            points, normalised to the padded map; may be outside of [0, 1].
        point_weights: (bs, num_queries, num_heads, num_levels, num_points), weight of each point in
            [0, 1]; they add up to 1 over levels and points.
    """

    weights: Tensor | None = None
    level_weights: Tensor | None = None
    points: Tensor | None = None
    point_weights: Tensor | None = None


class CrossAttention(LayerPart):
    """Base class of cross-attentions."""

    role = "cross-attention"
    reads = frozenset({Field.POS, Field.PRIOR})

    def forward(
        self, queries: Queries, memory: Memory, spatial_prior: Tensor | None = None
    ) -> Tensor:
        """Attend from the queries to the memory.

        Shape:
            spatial_prior: (bs, num_heads or 1, num_queries, num_tokens), added to scores; None.
            returns: (bs, num_queries, embed_dims), without the residual.
        """
        raise NotImplementedError

    def explain(
        self, queries: Queries, memory: Memory, spatial_prior: Tensor | None = None
    ) -> Explanation:
        """Explain ``forward`` for the attention viewer, with the same arguments.

        The viewer calls this after the forward pass. Fields that a part cannot explain stay None.
        """
        return Explanation()


# Config key, below ``model``, and the part at that key.
Placed = tuple[str, nn.Module]

LAYER_SLOTS: dict[str, type[Part]] = {
    "self_attn": SelfAttention,
    "aligner": Aligner,
    "spatial_prior": SpatialPrior,
    "cross_attn": CrossAttention,
}
SLOTS: dict[str, type[Part]] = {
    "transformer": Transformer,
    "transformer.encoder": Encoder,
    "transformer.queries": QueryInitialiser,
    "transformer.decoder": Decoder,
    **{f"transformer.decoder.{name}": base for name, base in LAYER_SLOTS.items()},
}
