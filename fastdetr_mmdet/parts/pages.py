"""The parts as text: an overview and one part in full for a terminal, and the page for GitHub."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from .combinations import SWITCHES, Product
from .fitting import LEVELS, Pair
from .registered import PACKAGE, Parameter, Part, Role

WIDTH = 100
PAGE = "docs/parts.md"
COMMAND = f"python -m {PACKAGE}.parts"
HANDED_DOWN = (
    "`embed_dims` is handed down by the transformer, `num_queries` by the detector; what sits in a "
    "decoder layer is also told its `layer_index` and the decoder's `num_heads`, attentions its "
    "`dropout` too. A config sets them only where they are to differ."
)


def overview(roles: Sequence[Role], pairs: Sequence[Pair]) -> str:
    """All parts and what does not fit together, for a terminal."""
    lines = [f"{sum(len(role.parts) for role in roles)} registered parts in {len(roles)} roles."]
    for role in roles:
        lines += ["", f"{role.name}  ({role.slot})" if role.slot else role.name]
        lines += _wrap(_plain(role.text), "  ")
        for part in role.parts:
            own = ", ".join(map(str, part.parameters)) or _constructor(part)
            lines += _wrap(f"{part.name}({own})", "  ", " " * (len(part.name) + 3))
            lines += _wrap(f"{_plain(part.summary)} Paper: {_plain(_paper(part))}.", "      ")
    lines += ["", *_wrap(_plain(_about_pairs(pairs))), *_wrap("All pairs build but these:")]
    lines += _exceptions(pairs)
    lines += ["", f"One part in full: {COMMAND} NAME. All of it, with totals: {PAGE}."]
    return "\n".join(lines)


def full(part: Part, slot: str | None, pairs: Sequence[Pair]) -> str:
    """One part: docstring, parameters and what it does not fit with, for a terminal."""
    lines = [part.name, f"{part.file}, registered in {part.registry}"]
    lines += [f"Config: {slot}"] if slot else []
    for paragraph in (part.summary, f"Paper: {_paper(part)}.", *part.notes):
        lines += ["", *_wrap(_plain(paragraph), "", "  " if paragraph.startswith("- ") else "")]
    lines += [
        "",
        "Parameters:" if part.parameters else f"Parameters: {_constructor(part) or 'none'}",
    ]
    for parameter in (*part.parameters, *part.inherited):
        if part.inherited and parameter.name.startswith("*"):
            continue  # what it stands for follows
        lines += [f"  {parameter}", *_wrap(_plain(parameter.text), "      ")]
    if part.raises:
        lines += ["", *_wrap(f"Raises {_plain(part.raises)}")]
    if pairs:
        lines += ["", f"Fits together with all {len(pairs)} parts of other roles, but for these:"]
        lines += _exceptions(pairs) or ["  none"]
    return "\n".join(lines)


def page(roles: Sequence[Role], pairs: Sequence[Pair], product: Product) -> str:
    """The page ``docs/parts.md``."""
    index = [
        (
            f"[{role.name}](#{role.name})",
            f"`{role.slot}`" if role.slot else "",
            ", ".join(f"[`{part.name}`](#{part.name.lower()})" for part in role.parts),
        )
        for role in roles
    ]
    lines = [
        "# Parts",
        "",
        f"<!-- Made by `{COMMAND} --markdown -o {PAGE}`",
        "     from registries, signatures, docstrings and small models: edit those. -->",
        "",
        f"What this package registers, by role. `{COMMAND}` prints a shorter list, "
        f"`{COMMAND} GaussianPrior` one part in full, with its notes. How to add one: "
        "[extending.md](extending.md).",
        "",
        *_table(("role", "in a config", "parts"), index),
        "",
        HANDED_DOWN,
        "",
        "## What fits together",
        "",
        "Parts that do not fit together are refused when the model is built.",
        "",
        *_what_fits(pairs, product),
    ]
    for role in roles:
        lines += ["", f"## {role.name}", "", _markdown(role.text)]
        for part in role.parts:
            lines += ["", *_section(part)]
    return "\n".join(lines) + "\n"


def _section(part: Part) -> list[str]:
    lines = [
        f"### {part.name}",
        "",
        f"{_markdown(part.summary)} Paper: {_markdown(_paper(part))}. [Source](../{part.file})",
        "",
    ]
    if not part.parameters:
        return [*lines, f"Parameters: {_constructor(part) or 'none'}."]
    rows = [(f"`{p.name}`", _default(p), _markdown(p.text)) for p in part.parameters]
    table = _table(("parameter", "default", ""), rows)
    return [*lines, "<details><summary>Parameters</summary>", "", *table, "", "</details>"]


def _what_fits(pairs: Sequence[Pair], product: Product) -> list[str]:
    odd = [pair for pair in pairs if pair.settings or pair.refusal]
    columns = _distinct(pair.first.name for pair in odd)
    rows = _distinct(pair.second.name for pair in odd)
    letters = {setting: f"({chr(97 + n)})" for n, setting in enumerate(_settings(odd))}
    sentences = {origin: sentence for origin, (sentence, _) in product.reasons.items()}
    sentences = _sentences(odd) | {o: s for o, s in sentences.items() if o not in _sentences(odd)}
    numbers = {origin: f"({n})" for n, origin in enumerate(sentences, 1)}
    cells = {(pair.second.name, pair.first.name): "yes" for pair in pairs}
    for pair in odd:
        how = ["no", numbers[pair.refusal.origin]] if pair.refusal else ["yes"]
        cells[pair.second.name, pair.first.name] = " ".join(
            [*how, *(letters[setting] for setting in pair.settings)]
        )
    table = [(f"`{row}`", *(cells.get((row, column), "") for column in columns)) for row in rows]
    priors = [
        (prior if prior == "none" else f"`{prior}`", f"{size:,}", f"{built:,}", f"{size - built:,}")
        for prior, (size, built) in product.priors.items()
    ]
    reasons = [(numbers[origin], f"{count:,}") for origin, (_, count) in product.reasons.items()]
    return [
        f"{_about_pairs(pairs)} Every pair builds that is not in this table:",
        "",
        *_table(("", *(f"`{column}`" for column in columns)), table),
        "",
        _about_product(product, letters),
        "",
        *_table(("spatial prior", "combinations", "build", "refused"), priors),
        "",
        *_table(("first refused by", "combinations"), sorted(reasons)),
        "",
        "`tests/test_product.py` trains what builds, for all priors but `SalientGaussianPrior`.",
        "",
        "Settings, and sentences with the names of the first that met them:",
        "",
        *[f"- {letter} `{_call(setting)}`" for setting, letter in letters.items()],
        *[f"- {number} {sentences[origin]}" for origin, number in numbers.items()],
    ]


def _about_product(product: Product, letters: dict) -> str:
    axes = [
        f"{role} ({len(parts) - 1} or none)" if None in parts else f"{role} ({len(parts)})"
        for role, parts in product.choices.items()
    ]
    axes.append(f"feature levels ({' or '.join(map(str, LEVELS))})")
    axes += [f"`{name}` (on or off)" for _, name in SWITCHES]
    settings = "".join(f" {letters[setting]}" for setting in product.settings)
    return (
        f"Of the {product.size:,} combinations of {', '.join(axes)}, with the settings{settings} "
        f"and the decoder that the cross-attention asks for, {product.built:,} build and "
        f"{product.size - product.built:,} are refused."
    )


def _about_pairs(pairs: Sequence[Pair]) -> str:
    refused = sum(pair.refusal is not None for pair in pairs)
    set_up = sum(bool(pair.settings) for pair in pairs)
    levels = " and ".join(map(str, LEVELS))
    return (
        f"Measured: {len(pairs)} pairs of parts of two roles, in small models of {levels} feature "
        f"levels, with the other roles at a choice that allows it. {len(pairs) - refused - set_up} "
        f"build as they are, {set_up} after a setting, {refused} are refused."
    )


def _exceptions(pairs: Sequence[Pair]) -> list[str]:
    odd = [pair for pair in pairs if pair.settings or pair.refusal]
    sentences = _sentences(odd)
    numbers = {origin: f"({n})" for n, origin in enumerate(sentences, 1)}
    lines = []
    for pair in odd:
        result = f"no {numbers[pair.refusal.origin]}" if pair.refusal else "yes, as "
        result += ", ".join(map(_call, pair.settings))
        lines.append(f"  {pair.first.name} with {pair.second.name}: {result}")
    for origin, sentence in sentences.items():
        lines += _wrap(f"{numbers[origin]} {sentence}", "  ", "      ")
    return lines


def _sentences(pairs: Sequence[Pair]) -> dict[tuple[str, int], str]:
    """Origin of each refusal -> its first sentence."""
    found: dict[tuple[str, int], str] = {}
    for pair in pairs:
        if pair.refusal:
            found.setdefault(pair.refusal.origin, pair.refusal.sentence)
    return found


def _settings(pairs: Sequence[Pair]) -> list[tuple[str, str, Any]]:
    return _distinct(setting for pair in pairs for setting in pair.settings)


def _call(setting: tuple[str, str, Any]) -> str:
    name, parameter, value = setting
    return f"{name}({parameter}={value!r})"


def _constructor(part: Part) -> str:
    """In the place of parameters that are another package's; '' where there are none."""
    owner = part.constructor
    return f"those of {owner.__module__.split('.')[0]}'s {owner.__name__}" if owner else ""


def _paper(part: Part) -> str:
    return part.paper or "none"


def _default(parameter: Parameter) -> str:
    return "" if parameter.default is None else f"`{parameter.default}`"


def _distinct(values: Iterable) -> list:
    return list(dict.fromkeys(values))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]


def _markdown(text: str) -> str:
    """A docstring's text, its papers as links."""
    text = re.sub(r"``(.+?)``", r"`\1`", text)
    return re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def _plain(text: str) -> str:
    return text.replace("`", "")


def _wrap(text: str, indent: str = "", hanging: str | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent if hanging is None else hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
