"""Contracts of a transformer's parts, and the check that parts fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from .parts import SLOTS, Decoder, Field, Part, Placed


@dataclass(frozen=True)
class Contract:
    """Declarations of a part; a module that is not a ``Part`` has its role's defaults."""

    slot: str
    part: nn.Module
    reads: frozenset[Field]
    makes: frozenset[Field]
    num_levels: int | None
    level_limit: tuple[int, str] | None
    num_heads: int | None

    @property
    def name(self) -> str:
        """Class name of the part."""
        return type(self.part).__name__


def contract(slot: str, part: nn.Module) -> Contract:
    """Read a part's declarations; a plain ``nn.Module`` may leave out any of them."""
    base = SLOTS[slot]
    makes = frozenset(getattr(part, "makes", base.makes))
    return Contract(
        slot,
        part,
        reads=frozenset(getattr(part, "reads", base.reads)),
        makes=makes | {Field.POINT} if Field.BOX in makes else makes,
        **{name: getattr(part, name, None) for name in ("num_levels", "level_limit", "num_heads")},
    )


# Field that may be missing -> slot that makes it, and the fix.
_MISSING = {
    Field.BOX: (
        "transformer.queries",
        "choose LearnedBoxQueries or TwoStageQueries in transformer.queries",
    ),
    Field.POINT: (
        "transformer.queries",
        "set reference='mlp' in transformer.queries or choose another query initialiser",
    ),
    Field.SPATIAL: (
        "transformer.decoder",
        "set transformer.decoder.type to 'ConditionalDecoder'",
    ),
    Field.SALIENT: (
        "transformer.decoder.aligner",
        "set transformer.decoder.aligner to dict(type='SAMSemanticAligner') or use GaussianPrior",
    ),
}
# Field -> slot that must read it if it is made, and the fix. Unread fields would not be trained,
# or, like a mask, be ignored.
_UNREAD = {
    Field.SPATIAL: ("cross_attn", "set transformer.decoder.type to 'DetrDecoder'"),
    Field.PRIOR: (
        "cross_attn",
        "drop transformer.decoder.spatial_prior or choose a dense cross-attention such as "
        "ConditionalAttention",
    ),
    Field.MASK: (
        "self_attn",
        "let it apply Queries.attend_mask and declare reads = {Field.MASK}, or choose "
        "MultiheadSelfAttention in transformer.decoder.self_attn",
    ),
}
_MADE_TWICE = (
    "set predict_reference=False in transformer.decoder.spatial_prior, or choose LearnedQueries "
    "with reference='none' in transformer.queries"
)


def check_flow(placed: Iterable[Placed], num_levels: int | None = None) -> None:
    """Raise an error for parts that would fail or get no gradient.

    Args:
        placed: Every part of a transformer with its config key.
        num_levels: Number of the neck's outputs; None if unknown.

    Raises:
        ValueError: if a part is in another role's slot, reads a field that no part makes, makes a
            field that no part reads, or has a wrong number of heads or levels; the message names
            the parts and the fix.
    """
    contracts = [contract(slot, part) for slot, part in placed]
    for one in contracts:
        base = SLOTS[one.slot]
        if isinstance(one.part, Part) and not isinstance(one.part, base):
            raise ValueError(
                f"{one.slot} has type {one.name}, whose role is {one.part.role}, not {base.role}. "
                "`python -m fastdetr_mmdet parts` lists the parts of every role."
            )
    _check_fields(contracts)
    _check_heads({one.slot: one for one in contracts})
    if num_levels is not None:
        _check_levels(contracts, num_levels)


def _check_fields(contracts: Sequence[Contract]) -> None:
    by_slot: dict[str, Contract] = {}
    makers: dict[Field, dict[str, Contract]] = {}
    for one in contracts:
        by_slot.setdefault(one.slot, one)
        for field in one.makes:
            makers.setdefault(field, {}).setdefault(one.slot, one)
    for field, by in makers.items():
        if len(by) > 1:
            names = " and ".join(one.name for one in by.values())
            raise ValueError(f"{names} both make {field.value}; {_MADE_TWICE}.")
    for one in contracts:
        for field, (slot, remedy) in _MISSING.items():
            if field in one.reads and field not in makers:
                maker = by_slot[slot].name if slot in by_slot else f"{slot}=None"
                raise ValueError(
                    f"{one.name} reads {field.value}, which {maker} does not make; {remedy}."
                )
        for field, (name, remedy) in _UNREAD.items():
            reader = one.slot == f"transformer.decoder.{name}"
            if reader and field in makers and field not in one.reads:
                (maker,) = (made.name for made in makers[field].values())
                raise ValueError(
                    f"{maker} makes {field.value}, which {one.name} does not read; {remedy}."
                )


def _check_heads(by_slot: dict[str, Contract]) -> None:
    attention = by_slot.get("transformer.decoder.cross_attn")
    for name, others in (("aligner", ()), ("spatial_prior", (1,))):
        one = by_slot.get(f"transformer.decoder.{name}")
        if one is None or attention is None or None in (one.num_heads, attention.num_heads):
            continue
        if one.num_heads not in (attention.num_heads, *others):
            raise ValueError(
                f"{one.name} has num_heads={one.num_heads} and {attention.name} has "
                f"num_heads={attention.num_heads}; leave both out to use the decoder's num_heads."
            )


def _check_levels(contracts: Sequence[Contract], num_levels: int) -> None:
    schedule: Sequence[int] | None = None
    for one in contracts:
        if isinstance(one.part, Decoder):
            schedule = one.part.level_schedule
            if schedule and not -num_levels <= min(schedule) <= max(schedule) < num_levels:
                raise ValueError(
                    f"{one.name}: level_schedule={list(schedule)} names levels that the neck's "
                    f"{num_levels} outputs do not have; count from 0."
                )
    for one in contracts:
        seen, where, remedy = num_levels, f"the neck gives {num_levels}", ""
        if one.slot.startswith("transformer.decoder."):
            seen = num_levels if schedule is None else 1
            where = f"its layer sees {seen} of the neck's outputs"
            remedy = ", or set transformer.decoder.level_schedule to give each layer one level"
        if one.num_levels not in (None, seen):
            raise ValueError(
                f"{one.name} has num_levels={one.num_levels}, but {where}; set num_levels={seen} "
                f"in {one.slot}{remedy}."
            )
        most, argument = one.level_limit or (seen, "")
        if most < seen:
            raise ValueError(
                f"{one.name} takes at most {most} feature levels with this {argument}, but "
                f"{where}; change {argument} in {one.slot}."
            )
