"""Base classes of the parts of a transformer: one for each role, which is a slot of the config."""

from __future__ import annotations

from typing import ClassVar

from torch import nn


class Part(nn.Module):
    """A part that a config names; ``role`` is the slot it belongs to."""

    role: ClassVar[str]


class Encoder(Part):
    """``(Memory) -> Memory``."""

    role = "encoder"


class QueryInitialiser(Part):
    """``(Memory, proposal branches) -> (Queries, Proposals or None)``."""

    role = "query initialiser"


class Decoder(Part):
    """``(Queries, Memory, box branches) -> DecoderOutput``."""

    role = "decoder"


class SelfAttention(Part):
    """``(Queries) -> (bs, num_queries, embed_dims)``."""

    role = "self-attention"


class CrossAttention(Part):
    """``(Queries, Memory, spatial prior) -> (bs, num_queries, embed_dims)``."""

    role = "cross-attention"


class Aligner(Part):
    """``(Queries, Memory) -> Queries``, between self-attention and cross-attention."""

    role = "aligner"


class SpatialPrior(Part):
    """``(Queries, Memory) -> (bs, num_heads or 1, num_queries, num_tokens)``, added to scores."""

    role = "spatial prior"


def check_role(part: nn.Module, base: type[Part], key: str) -> None:
    """Raise ValueError if a part stands in another role's slot of the config.

    Modules that are not a ``Part`` may stand anywhere.

    Args:
        part: The part that was built.
        base: Base class of the slot's role.
        key: The slot in the config.
    """
    if isinstance(part, Part) and not isinstance(part, base):
        raise ValueError(
            f"{key} has type {type(part).__name__}, whose role is {part.role}, not {base.role}. "
            "`python -m fastdetr_mmdet.parts` lists the parts of every role."
        )
