"""HTML in which every text is escaped, because only ``Html`` is taken as markup."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

_VOID = ("br", "hr", "img", "meta", "line", "rect", "circle", "path", "polyline", "use", "image")


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def el(name: str, /, *children: Any, **attributes: Any) -> Html:
    """An element; children and attributes are escaped unless they are ``Html``.

    Args:
        name: Of the tag.
        children: Text, ``Html``, nested iterables of these, or None for nothing.
        attributes: ``cls`` stands for class, an underscore within a name for a hyphen; None and
            False leave an attribute out.
    """
    text = "".join(
        f' {_attribute_name(key)}="{escape(_printable(str(value)))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID and not children:
        return Html(f"<{name}{text}/>")
    return Html(f"<{name}{text}>{join(children)}</{name}>")


def join(children: Iterable[Any]) -> Html:
    """Children one after another, escaped unless they are ``Html``."""
    return Html("".join(map(_child, children)))


def _child(child: Any) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, (list, tuple)):
        return join(child)
    return escape(_printable(str(child)))


def _printable(text: str) -> str:
    """Without what no page may hold: control characters, and names that are not UTF-8."""
    if text.isprintable():
        return text
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c.isprintable() or c in "\n\t " else "�" for c in text)


def _attribute_name(key: str) -> str:
    return "class" if key == "cls" else key.replace("_", "-")


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]], cls: str = "") -> Html:
    """A table in a box of its own that scrolls; first cells are headings of their rows.

    A cell may be a ``td`` or ``th`` already.
    """
    header = el("tr", [_cell("th", cell, scope="col") for cell in head])
    body = []
    for row in rows:
        first, *rest = row
        body.append(el("tr", el("th", first, scope="row"), [_cell("td", cell) for cell in rest]))
    content = el("table", el("thead", header), el("tbody", body), cls=cls or None)
    return el("div", content, cls="scroll", tabindex="0")


def _cell(name: str, cell: Any, **attributes: Any) -> Html:
    if isinstance(cell, Html) and cell.startswith((f"<{name} ", f"<{name}>")):
        return cell
    return el(name, cell, **attributes)


def figure(value: float | None, digits: int = 3) -> str:
    """A number with fixed digits; a dash for None."""
    return "—" if value is None else f"{value:.{digits}f}"
