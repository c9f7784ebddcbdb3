"""The page as a whole: its head, its sections and its looks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from ..version import __version__
from .chart import look_of
from .error_section import error_section
from .markup import Html, el, join
from .overview import learning_curves, overview
from .run import Run
from .samples import sample_section
from .settings import Settings
from .tables import coco_section, config_section

# The page may load nothing and run nothing, whatever a text in it says
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def make_page(runs: Sequence[Run], settings: Settings, written: datetime) -> str:
    """The report as one HTML file that needs no other.

    Args:
        runs: What to report, in the order of the colours.
        settings: How many pictures, and the score from which on boxes count.
        written: Printed at the top.
    """
    sections = [
        ("runs", "Runs", join([overview(runs), None if settings.predictions else _nothing_run()])),
        ("curves", "How they learned", learning_curves(runs)),
        ("coco", "COCO figures", coco_section(runs)),
    ]
    if settings.predictions:
        sections += [
            ("samples", "Boxes beside ground truth",
             sample_section(runs, settings.images, settings.min_score)),
            ("errors", "Errors", error_section(runs, settings.examples, settings.min_score)),
            ("attention", "Where the detectors looked", _attention(runs)),
        ]  # fmt: skip
    if len(runs) > 1:
        config = ("config", "What differs in the configs", config_section(runs))
        sections.insert(3, config)
    names = ", ".join(run.name for run in runs)
    title = (
        f"Detection report: {names}" if len(names) < 80 else f"Detection report: {len(runs)} runs"
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="referrer", content="no-referrer"),
        el("title", title),
        el("style", Html(_style())),
    )
    count = f"{len(runs)} runs" if len(runs) > 1 else "1 run"
    header = el(
        "header",
        el("h1", "Detection report"),
        el("p", f"{count} · {written:%d %B %Y, %H:%M} · fastdetr_mmdet {__version__}"),
        el("nav", [el("a", text, href=f"#{name}") for name, text, _ in sections]),
    )
    body = [
        el("section", el("h2", text), content, id=name, cls="part")
        for name, text, content in sections
    ]
    footer = el(
        "footer",
        "Written by ",
        el("code", "python -m fastdetr_mmdet.report"),
        ". This file holds all that it shows and loads nothing.",
    )
    page = el("html", head, el("body", header, el("main", body), footer), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def _nothing_run() -> Html:
    return el(
        "p",
        "No checkpoint was run, as was asked for (--no-predictions): figures are those of the "
        "logs, and there are no boxes, errors or attention.",
        cls="note after",
    )


def _style() -> str:
    return Path(__file__).with_name("style.css").read_text(encoding="utf-8")


def _attention(runs: Sequence[Run]) -> Html:
    """Contact sheets of each run, or why there are none."""
    parts = []
    for number, run in enumerate(runs):
        name = el("h3", el("span", "", cls=f"swatch {look_of(number)}"), run.name)
        sheets = [
            el(
                "figure",
                el(
                    "div",
                    el(
                        "img",
                        src=sheet.data,
                        width=sheet.size[0],
                        height=sheet.size[1],
                        alt=f"Attention of {run.name} in {sheet.file}",
                    ),
                    cls="scroll sheet",
                    tabindex="0",
                ),
                el("figcaption", sheet.file),
            )
            for sheet in run.sheets
        ]
        if sheets:
            parts.append(el("section", name, el("div", sheets, cls="sheets")))
        elif run.why_no_sheets:
            parts.append(el("section", name, el("p", run.why_no_sheets, cls="empty")))
    if not parts:
        return el("p", "No checkpoint was run, so there is no attention to show.", cls="empty")
    note = el(
        "p",
        "The surest detections of an image, and for each what its query attended to. "
        "docs/visualization.md explains the panels.",
        cls="note",
    )
    return join([note, *parts])
