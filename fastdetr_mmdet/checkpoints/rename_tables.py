"""Rules of ``rename_tables.yaml`` and ``backbone_tables.yaml``: other codes' names -> mmdet's."""

from __future__ import annotations

import functools
import itertools
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

Rules = list[tuple[re.Pattern[str], str]]


@functools.cache
def rules(name: str) -> Rules:
    """The (pattern, replacement) pairs of one list; the first that matches a name wins."""
    return [_compiled(*rule.split(" -> ")) for rule in _spelled_out(name)]


@functools.cache
def reversed_rules(name: str) -> Rules:
    """The same rules reversed."""
    pairs = [rule.split(" -> ") for rule in _spelled_out(name)]
    return [_compiled(*_reverse(old, new)) for old, new in pairs if new != "-"]


def rename(key: str, rules: Rules) -> str:
    """The renamed key; "" if no pattern matches."""
    rule = next(((old, new) for old, new in rules if old.match(key)), None)
    return rule[0].sub(rule[1], key, count=1) if rule else ""


def _compiled(old: str, new: str) -> tuple[re.Pattern[str], str]:
    return re.compile(old.replace(".", r"\.")), new


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
def read_lists() -> dict[str, Any]:
    """All lists by their names."""
    import yaml  # late, to keep --help fast

    files = (Path(__file__).with_name(f"{kind}_tables.yaml") for kind in ("rename", "backbone"))
    return {k: v for file in files for k, v in yaml.safe_load(file.read_text("utf-8")).items()}


def _spelled_out(rules: str | list[Any]) -> Iterator[str]:
    """Rules of a list, which may be given by its name, with shorthands expanded."""
    for rule in read_lists()[rules] if isinstance(rules, str) else rules:
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
                place = re.compile(rf"\{{(2?){letter}\+?(\d?)\}}")
                for pair, n in itertools.product(_spelled_out(inner), range(count)):
                    yield place.sub(functools.partial(_number, n), pair)
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


def _number(n: int, place: re.Match[str]) -> str:
    """The number that {n}, {n+1}, {2n+1} or {2n+2} stands for."""
    return str(int(place[1] or 1) * n + int(place[2] or 0))
