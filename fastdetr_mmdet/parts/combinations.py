"""Every combination of the parts of the roles that matter, measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from .fitting import LEVELS, Pair, assemble, options
from .registered import Part

# The axes besides the levels: roles, and switches (role, parameter).
ROLES = ("encoders", "cross_attention", "queries", "aligners", "spatial_priors")
SWITCHES = (("decoders", "refine"), ("heads", "share_pred_layer"))


@dataclass
class Product:
    """All combinations of the parts of some roles, and what became of them.

    Args:
        choices: Role -> what it can be, None for nothing.
        settings: Parameters that are not at their default: (part, parameter, value).
        priors: Spatial prior ('none' for none) -> [combinations, of these built].
        reasons: Origin of a refusal -> [its first sentence, how many].
    """

    choices: dict[str, list[Part | None]]
    settings: list[tuple[str, str, Any]]
    priors: dict[str, list[int]]
    reasons: dict[tuple[str, int], list]

    @property
    def size(self) -> int:
        """How many combinations there are."""
        return sum(count for count, _ in self.priors.values())

    @property
    def built(self) -> int:
        """How many of them build."""
        return sum(built for _, built in self.priors.values())


def measure_product(pairs: Sequence[Pair]) -> Product:
    """Build every combination of the parts of ``ROLES``, of ``SWITCHES`` and of ``LEVELS``.

    The decoder is the first that goes with the cross-attention, and a part that some pair asks to
    leave a default does so.

    Args:
        pairs: What ``measure_pairs`` found.
    """
    decoders: dict[str, Part] = {}
    needed: dict[tuple[str, str], Any] = {}
    for pair in pairs:
        if pair.refusal is None and pair.first.role == "decoders":
            decoders.setdefault(pair.second.name, pair.first)
        for name, parameter, value in pair.settings:
            needed.setdefault((name, parameter), value)
    choices = {role: options(role) for role in ROLES}
    choices["cross_attention"].remove(None)  # a decoder without one in its config has its default
    in_use = {part.name for parts in choices.values() for part in parts if part}
    settings = [(*where, value) for where, value in needed.items() if where[0] in in_use]

    priors: dict[str, list[int]] = {}
    reasons: dict[tuple[str, int], list] = {}
    states = list(product((False, True), repeat=len(SWITCHES)))
    for num_levels, state in product(LEVELS, states):
        switches = [(*switch, on) for switch, on in zip(SWITCHES, state, strict=True)]
        for values in product(*choices.values()):
            parts = dict(zip(ROLES, values, strict=True))
            attention, prior = parts["cross_attention"], parts["spatial_priors"]
            assert attention is not None
            parts["decoders"] = decoders[attention.name]
            by_name = {part.name: part.role for part in parts.values() if part}
            own = [(by_name[name], p, value) for name, p, value in settings if name in by_name]
            refusal = assemble(parts, [*switches, *own], num_levels).refusal()
            count = priors.setdefault(prior.name if prior else "none", [0, 0])
            count[0] += 1
            if refusal is None:
                count[1] += 1
            else:
                reasons.setdefault(refusal.origin, [refusal.sentence, 0])[1] += 1
    return Product(choices, settings, priors, reasons)
