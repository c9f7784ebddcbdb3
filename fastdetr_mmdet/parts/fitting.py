"""Which parts fit together, measured: small models are built, and what refuses is written down."""

from __future__ import annotations

import re
import traceback
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, product
from typing import Any

from mmdet.registry import MODELS
from torch import nn

from .registered import SLOTS, Part, Role, registered_roles

# Feature levels of the models; a pair fits if it does on either number.
LEVELS = (1, 3)
# What a part gets if it has such a parameter: nothing here decides what fits.
SMALL = dict(
    embed_dims=8,
    num_layers=1,
    pattern=("intra", "multi"),
    num_heads=2,
    num_points=1,
    feedforward_channels=4,
    num_queries=2,
    num_classes=1,
)


@dataclass(frozen=True)
class Refusal:
    """Why a model was not built: the sentence, and the raise statement it comes from."""

    sentence: str
    origin: tuple[str, int]

    @property
    def words(self) -> frozenset[str]:
        """What the sentence names."""
        return frozenset(re.findall(r"\w+", self.sentence))


@dataclass(frozen=True)
class Model:
    """A choice of parts, None where a role is left out, and of their parameters.

    Args:
        parts: Part of each role.
        settings: (role, parameter, value) of what is not at its default.
        num_levels: Feature levels.
    """

    parts: tuple[tuple[str, Part | None], ...]
    settings: tuple[tuple[str, str, Any], ...]
    num_levels: int

    def config(self) -> dict:
        """The model's config; its backbone only says how many levels there are."""
        model: dict = dict(backbone=dict(type=nn.Identity, out_indices=range(self.num_levels)))
        small = dict(SMALL, num_levels=self.num_levels)
        for role, part in self.parts:
            if part is not None:
                place = model
                for key in SLOTS[role].split(".")[1:]:
                    place = place.setdefault(key, {})
                place.update({k: v for k, v in small.items() if k in part.accepted}, type=part.name)
                place.update({name: value for r, name, value in self.settings if r == role})
        return model

    def refusal(self) -> Refusal | None:
        """Build the model; None, or why that is refused."""
        try:
            MODELS.build(self.config())
        except ValueError as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            return Refusal(str(error), (frame.filename, frame.lineno or 0))
        return None


@dataclass(frozen=True)
class Fit:
    """What came of a search: a model that builds, or the refusal that says most."""

    model: Model
    refusal: Refusal | None


@dataclass(frozen=True)
class Pair:
    """Two parts of two roles: whether a model with both builds.

    Args:
        first: A part.
        second: A part of a later role.
        settings: Which of their parameters had to leave their defaults: (part, parameter, value).
        refusal: Why no model with both builds; None if one does.
    """

    first: Part
    second: Part
    settings: tuple[tuple[str, str, Any], ...]
    refusal: Refusal | None


@cache
def roles() -> dict[str, Role]:
    """The roles that meet in a model; a backbone only meets the neck."""
    found = {role.name: role for role in registered_roles()}
    return {
        name: found[name]
        for name, slot in SLOTS.items()
        if slot.startswith("model") and name != "backbones" and name in found
    }


def options(role: str) -> list[Part | None]:
    """What a config can put there: a part, or, first, nothing if that is allowed."""
    return [*([] if _is_required(role) else [None]), *roles()[role].parts]


@cache
def _is_required(role: str) -> bool:
    parent, _, key = SLOTS[role].rpartition(".")
    owners = [part for name in roles() if SLOTS[name] == parent for part in roles()[name].parts]
    if not parent:
        return True
    accepted = [owner.accepted[key] for owner in owners if key in owner.accepted]
    return any(parameter.default is parameter.empty for parameter in accepted)


def fit(fixed: Mapping[str, Part], num_levels: int) -> Fit:
    """Look for a model with these parts that builds.

    It starts from nothing but what a model must have, everything at its default. Where that is
    refused, it tries all that the sentence of the refusal names: another part in a role that is not
    fixed; and, when none helps, another value of a parameter that takes one of a few.
    """
    start = assemble(fixed, (), num_levels)
    queue, later, seen, refusals = deque([start]), deque[Model](), {start}, []
    while queue or later:
        model = queue.popleft() if queue else later.popleft()
        refusal = model.refusal()
        if refusal is None:
            return Fit(model, None)
        refusals.append(refusal)
        for others, line in (
            (_with_other_parts(model, refusal.words, fixed), queue),
            (_with_other_settings(model, refusal.words), later),
        ):
            for other in others:
                if other not in seen:
                    seen.add(other)
                    line.append(other)
    names = {part.name for part in fixed.values()}
    return Fit(start, max(refusals, key=lambda refusal: len(names & refusal.words)))


def assemble(
    fixed: Mapping[str, Part | None], settings: Sequence[tuple[str, str, Any]], num_levels: int
) -> Model:
    """The model with these parts and, in the other roles, the least that is allowed."""
    parts = tuple((role, fixed[role] if role in fixed else options(role)[0]) for role in roles())
    return Model(parts, tuple(settings), num_levels)


def _with_other_parts(
    model: Model, words: frozenset[str], fixed: Mapping[str, Part]
) -> Iterator[Model]:
    parts = dict(model.parts)
    for role in parts:
        key = SLOTS[role].rpartition(".")[2]
        named = key in words or any(part.name in words for part in roles()[role].parts)
        if role not in fixed and named:
            kept = tuple(setting for setting in model.settings if setting[0] != role)
            for part in options(role):
                if part is not parts[role]:
                    yield replace(model, parts=tuple({**parts, role: part}.items()), settings=kept)


def _with_other_settings(model: Model, words: frozenset[str]) -> Iterator[Model]:
    for role, part in model.parts:
        if part is not None and part.name in words:
            for name, values in part.choices.items():
                kept = tuple(s for s in model.settings if s[:2] != (role, name))
                for value in values:
                    if name in words and value != part.accepted[name].default:
                        yield replace(model, settings=(*kept, (role, name, value)))


def measure_pairs(only: str | None = None) -> list[Pair]:
    """Every pair of parts of two roles, or those with one part.

    Left out are roles with one part that no model can do without.
    """
    free = [r for r in roles().values() if len(r.parts) > 1 or not _is_required(r.name)]
    pairs = []
    for first_role, second_role in combinations(free, 2):
        for first, second in product(first_role.parts, second_role.parts):
            if only in (None, first.name, second.name):
                pairs.append(_measure_pair(first, second))
    return pairs


def _measure_pair(first: Part, second: Part) -> Pair:
    fixed = {first.role: first, second.role: second}
    settings: dict[tuple[str, str, Any], None] = {}  # in the order of their finding
    for num_levels in LEVELS:
        found = fit(fixed, num_levels)
        if found.refusal is not None:
            return Pair(first, second, (), found.refusal)
        for role, name, value in found.model.settings:
            if role in fixed:
                settings[fixed[role].name, name, value] = None
    return Pair(first, second, tuple(settings), None)
