"""The parts as text: an overview and one part in full for a terminal, and the page for GitHub."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

from ..models.parts import Field
from .registered import Registered, Role

COMMAND = "python -m fastdetr_mmdet.parts"
PAGE = "docs/parts.md"
INTRODUCTION = f"""# Parts

<!-- Made by `{COMMAND} --markdown -o {PAGE}`
     from registries, signatures, docstrings and declarations: edit those. -->

What this package registers, by role. `{COMMAND}` prints a shorter list, `{COMMAND} GaussianPrior`
one part in full, with its notes. How to add one: [extending.md](extending.md).
"""
FITTING = """
A config sets `embed_dims` in the transformer and `num_queries` in the detector; both reach every
part that takes them. A decoder passes its `num_heads` and `layer_index` to the parts of its layers,
and its `dropout` to attentions. Set them in a part only where they are to differ.

## What fits together

A model is refused when it is built, with a sentence that names the parts and the remedy, if

- a part reads `POINT`, `BOX`, `SPATIAL` or `SALIENT` and no part makes it (boxes are points, too);
- the cross-attention does not read the `PRIOR` or the `SPATIAL` that a part makes;
- two parts make `POINT`;
- numbers of heads or of feature levels differ.

All else fits together; `tests/test_product.py` trains it.
"""


def overview(roles: Sequence[Role]) -> str:
    """All parts, for a terminal."""
    lines = [f"{sum(len(role.parts) for role in roles)} registered parts in {len(roles)} roles."]
    for role in roles:
        lines += ["", f"{role.name}  ({role.slot})" if role.slot else role.name]
        lines += _wrap(role.text, "  ")
        for part in role.parts:
            own = ", ".join(map(str, part.parameters)) or part.foreign
            lines += _wrap(f"{part.name}({own})", "  ", " " * (len(part.name) + 3))
            lines += _wrap(f"{part.summary} Paper: {part.paper}.", "      ")
            lines += [f"      {line}" for line in _declared(part)]
    lines += ["", f"One part in full: {COMMAND} NAME. How they fit together: {PAGE}."]
    return "\n".join(lines)


def full(part: Registered, slot: str | None) -> str:
    """One part: docstring, declarations and parameters, for a terminal."""
    lines = [part.name, f"{part.file}, registered in {part.registry}"]
    lines += [f"Config: {slot}"] if slot else []
    for paragraph in part.paragraphs:
        lines += ["", *_wrap(paragraph, "", "  " if paragraph.startswith("- ") else "")]
    lines += ["", *_declared(part)]
    lines += [f"Parameters: {part.foreign or ''}".rstrip()]
    for parameter in (*part.parameters, *part.inherited):
        if not (part.inherited and parameter.name.startswith("*")):
            lines += [f"  {parameter}", *_wrap(parameter.text, "      ")]
    return "\n".join(lines)


def page(roles: Sequence[Role]) -> str:
    """The page ``docs/parts.md``."""
    index = [
        (
            f"[{role.name}](#{role.name})",
            f"`{role.slot}`" if role.slot else "",
            ", ".join(f"[`{part.name}`](#{part.name.lower()})" for part in role.parts),
        )
        for role in roles
    ]
    parts = [part for role in roles for part in role.parts]
    declared = [
        (f"`{part.name}`", *(", ".join(part.declares[key]) for key in ("reads", "makes")))
        for part in parts
        if part.declares
    ]
    lines = [INTRODUCTION, *_table(("role", "in a config", "parts"), index), FITTING]
    lines += [*_table(("field", ""), [(f"`{f.name}`", f.value) for f in Field]), ""]
    lines += _table(("part", "reads", "makes"), declared)
    for role in roles:
        lines += ["", f"## {role.name}", "", _markdown(role.text)]
        for part in role.parts:
            lines += ["", f"### {part.name}", ""]
            text = f"{part.summary} Paper: {part.paper}."
            lines += [f"{_markdown(text)} [Source](../{part.file})", ""]
            if not part.parameters:
                lines += [f"Parameters: {part.foreign or 'none'}."]
                continue
            rows = [
                (f"`{p.name}`", f"`{p.default}`" if p.default else "", _markdown(p.text))
                for p in part.parameters
            ]
            table = _table(("parameter", "default", ""), rows)
            lines += ["<details><summary>Parameters</summary>", "", *table, "", "</details>"]
    return "\n".join(lines)


def _declared(part: Registered) -> list[str]:
    return [f"{key.title()}: {', '.join(names)}" for key, names in part.declares.items() if names]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]


def _markdown(text: str) -> str:
    """A docstring's text, its papers as links."""
    text = re.sub(r"``(.+?)``", r"`\1`", text)
    return re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def _wrap(text: str, indent: str = "", hanging: str | None = None) -> list[str]:
    return textwrap.wrap(
        text.replace("`", ""),
        100,
        initial_indent=indent,
        subsequent_indent=indent if hanging is None else hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
