"""Rules of ``rename_tables.yaml``: other codes' parameter names -> this package's."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Supported sources of checkpoints; "mmdet" uses the rules "mmdet_dino" for mmdet's DINO.
METHODS = (
    "conditional_detr",
    "deformable_detr",
    "detrex",
    "dino",
    "hf",
    "mmdet",
    "sam_detr",
    "smca_detr",
)
# Suffixes that ``state_dicts`` gives to the halves of an embedding of positions and contents.
POSITIONS, CONTENTS = "#positions", "#contents"
# A capturing group, which may contain other groups.
_GROUP = re.compile(r"\((?!\?)(?:[^()]|\([^()]*\))*\)")


@functools.cache
def rules(name: str) -> list[tuple[str, str]]:
    """The (pattern, replacement) pairs of one list; the first that matches a name wins."""
    return [(old, new) for old, new in (rule.split(" -> ") for rule in _spelled_out(name))]


@functools.cache
def reversed_rules(name: str) -> list[tuple[str, str]]:
    """The same rules reversed."""
    return [_reverse(old, new) for old, new in rules(name) if new != "-"]


def _reverse(old: str, new: str) -> tuple[str, str]:
    groups = _GROUP.findall(old)
    order = re.findall(r"\\(\d)", new)
    pattern = re.sub(r"\\(\d)", lambda match: groups[int(match[1]) - 1], new)
    numbers = iter(range(1, len(groups) + 1))
    written = _GROUP.sub(lambda _: rf"\g<{order.index(str(next(numbers))) + 1}>", old)
    written = re.sub(r"\(\?:[^()]*\)\?", "", written)
    written = re.sub(r"\(\?:([^()|]*)\|[^()]*\)", r"\1", written)
    return pattern + "$" * old.endswith("$"), written.rstrip("$")


@functools.cache
def _lists() -> dict[str, list[Any]]:
    import yaml  # late, to keep --help fast

    return yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def _spelled_out(rules_or_name: str | list[Any]) -> Iterator[str]:
    """Rules of a list, with shorthands expanded."""
    named = isinstance(rules_or_name, str)
    for rule in _lists()[rules_or_name] if named else rules_or_name:  # type: ignore[index]
        match rule:
            case str():
                yield rule
            case {"use": name}:
                yield from _spelled_out(name)
            case {"keep": pattern}:
                yield f"({pattern}) -> \\2"
            case {"mlp": pair, "layers": count}:
                old, new = pair.split(" -> ")
                for index in range(count):
                    yield f"{old}layers.{index}. -> {new}{2 * index}."
            case {"numbered": [letter, count], "rules": inner}:
                for pair in _spelled_out(inner):
                    for n in range(count):
                        numbered = pair.replace(f"{{{letter}}}", str(n))
                        yield numbered.replace(f"{{{letter}+1}}", str(n + 1))
            case {"under": prefixes, "rules": inner}:
                before, after = prefixes.split(" -> ")
                for pair in _spelled_out(inner):
                    old, new = pair.split(" -> ")
                    yield f"{before}{old} -> {after}{new}"
            case {"encoder": inner} | {"decoder": inner}:
                stack = next(iter(rule))
                layer = rf"{rule.get('below', 'transformer.')}{stack}.layers.(\d+)."
                for pair in _spelled_out(inner):
                    old, new = pair.split(" -> ")
                    yield rf"{layer}{old} -> transformer.{stack}.layers.\1.{new}"
