"""Format parts as text: an overview and one part for terminals, and the page for GitHub."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import jinja2

from ..models.parts import Field


def render(template: str, **content: Any) -> str:
    """Render ``overview.txt`` or ``page.md`` (roles), or ``part.txt`` (part, slot)."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fastdetr_mmdet.parts"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= dict(command="python -m fastdetr_mmdet parts", page="docs/parts.md")
    environment.globals["fields"] = list(Field)
    environment.filters |= dict(
        cell=lambda text: text.replace("|", r"\|"), markdown=_markdown, wrap=_wrap
    )
    return environment.get_template(template).render(content).rstrip("\n")


def _markdown(text: str) -> str:
    """Turn a docstring's papers into links."""
    text = re.sub(r"``(.+?)``", r"`\1`", text)
    return re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def _wrap(text: str, indent: int, hanging: int | None = None) -> str:
    first, rest = " " * indent, " " * (indent if hanging is None else hanging)
    lines = textwrap.TextWrapper(100, first, rest, break_long_words=False, break_on_hyphens=False)
    return lines.fill(text.replace("`", ""))
