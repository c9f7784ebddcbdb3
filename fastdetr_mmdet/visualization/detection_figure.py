"""One page on one query: its boxes, where each head and level looked, its scores."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from . import panels
from .canvas import COLOURS, FAINT, INK, Canvas, panel_size
from .contact_sheet import sheet_columns
from .inspected import InspectedImage, InspectedLayer

MARGIN, GAP, TITLE = 0.2, 0.22, 0.38  # inches
CHART = 2.5
PER_ROW = 8  # heads in a row
SLOTS = (2.1, 1.0, 1.5)  # what the titles of the three rows need


def draw_detection(
    inspected: InspectedImage, index: int = 0, layer: int | None = None
) -> np.ndarray:
    """Draw one of the inspected queries.

    Args:
        inspected: As ``inspect_image`` returns it.
        index: Which of ``inspected.queries``.
        layer: Decoder layer whose attention is shown, counted from 1; None: the last.

    Shape:
        returns: (H, W, 3) uint8 RGB

    Raises:
        ValueError: if there is no such layer.
        IndexError: if there is no such entry in ``inspected.queries``.
    """
    count = len(inspected.queries)
    if not -count <= index < count:
        were = "query was" if count == 1 else "queries were"
        raise IndexError(
            f"There is no entry {index}: {count} {were} inspected, counted from 0. `index` is a "
            "place in inspected.queries; to see a query by its number, inspect the image with "
            "queries=[number]."
        )
    query = inspected.queries[index]
    shown = query.layer(layer)
    number = layer or len(query.layers)
    columns = sheet_columns(shown)
    width, height = panel_size(inspected.image, 2.9, 4.2)
    slot = max(width, SLOTS[0]) + GAP
    rows = [row for row in (_heads(shown), _levels(shown)) if row]
    page_width = 2 * MARGIN + len(columns) * slot + CHART
    page_width = max(page_width, 2 * MARGIN + PER_ROW * (SLOTS[1] + GAP / 2))
    sizes = [_fit(inspected, len(row), page_width) for row in rows]
    lines = [-(-len(row) // PER_ROW) for row in rows]
    top = 0.85
    below = top + height + 0.3
    tall = sum(n * (h + TITLE) for (_, h), n in zip(sizes, lines, strict=True))
    page = Canvas(page_width, below + tall + 0.45)
    name = inspected.name(query.label)
    page.title(MARGIN, 0.12, f"{name}  {query.score:.2f}", inspected.file, 13)
    levels = ", ".join(str(level) for level in shown.levels)
    said = f"query {query.query}, attention of decoder layer {number} of {len(query.layers)}"
    page.text(
        MARGIN,
        0.38,
        f"{said}, which sees level{'s' * (len(shown.levels) > 1)} {levels}",
        8.5,
        color=FAINT,
    )
    for column, (heading, draw) in enumerate(columns):
        axis = page.panel(MARGIN + column * slot, top, width, height)
        draw(axis, inspected, query, shown)
        panels.title(axis, heading)
    left = MARGIN + len(columns) * slot + 0.25
    axis = page.panel(left, top, CHART - 0.35, height - (0.1 if shown.level_weights is None else 1))
    panels.scores(axis, inspected, query, number)
    panels.title(axis, "class scores per layer")
    if shown.level_weights is not None:
        axis = page.panel(left + 0.3, top + height - 0.42, CHART - 0.6, 0.5)
        panels.bars(axis, shown.level_weights, [f"level {level}" for level in shown.levels])
        panels.title(axis, "scale selection", 8)
    for (small, tall), row, count in zip(sizes, rows, lines, strict=True):
        for place, (heading, colour, draw_small) in enumerate(row):
            line, column = divmod(place, PER_ROW)
            step = max(small, SLOTS[1 if row is rows[0] else 2]) + GAP / 2
            x, y = MARGIN + column * step, below + TITLE + line * (tall + TITLE)
            axis = page.panel(x, y, small, tall)
            remark = draw_small(axis, inspected)
            panels.title(axis, f"{heading}{remark}", 7.5)
            for spine in axis.spines.values():
                spine.set(color=colour, linewidth=0.5 if colour == FAINT else 1.6)
        below += count * (tall + TITLE)
    page.text(MARGIN, page.height - 0.28, footnote(shown), 7.5, color=FAINT)
    return page.pixels()


Small = Callable[[Any, InspectedImage], str]
Row = list[tuple[str, str, Small]]


def _heads(layer: InspectedLayer) -> Row:
    """Heading, frame colour and drawing of every head; the drawing returns a remark."""
    if layer.weights is not None:
        count, draw = layer.weights[0].shape[0], _head_map
    elif layer.points is not None:
        count, draw = layer.points.shape[0], _head_points
    else:
        return []
    framed = layer.salient_points is not None  # in the colours of the salient points
    return [
        (
            f"head {head + 1}",
            COLOURS[head % len(COLOURS)] if framed else FAINT,
            partial(draw, layer=layer, head=head),
        )
        for head in range(count)
    ]


def _head_map(axis: Any, inspected: InspectedImage, layer: InspectedLayer, head: int) -> str:
    assert layer.weights is not None
    peak = panels.heat(axis, inspected, [maps[head] for maps in layer.weights], layer.box)
    if layer.salient_points is not None:
        style = dict(color=COLOURS[head % len(COLOURS)], edgecolors=INK, linewidths=0.7, zorder=5)
        axis.scatter(*layer.salient_points[head], s=34, **style)
    return f", peak {peak:.0f}x" if peak >= 10 else f", peak {peak:.1f}x"


def _head_points(axis: Any, inspected: InspectedImage, layer: InspectedLayer, head: int) -> str:
    panels.sampling(axis, inspected, layer, heads=[head], largest=40)
    return ""


def _levels(layer: InspectedLayer) -> Row:
    """The same for every level, if there are several."""
    row: Row = []
    for place, level in enumerate(layer.levels if len(layer.levels) > 1 else ()):
        if layer.attention is not None:
            h, w = layer.attention[place].shape
            share = float(layer.attention[place].sum())
            heading = f"level {level}, {h} x {w} cells\n{share:.0%} of attention"
            row.append((heading, FAINT, partial(_level_map, layer=layer, place=place)))
        elif layer.point_weights is not None:
            share = float(layer.point_weights[:, place].sum(-1).mean())
            heading = f"level {level}\n{share:.0%} of attention"
            row.append((heading, FAINT, partial(_level_points, layer=layer, place=place)))
    return row


def _level_map(axis: Any, inspected: InspectedImage, layer: InspectedLayer, place: int) -> str:
    assert layer.attention is not None
    panels.heat(axis, inspected, layer.attention[place : place + 1], layer.box)
    return ""


def _level_points(axis: Any, inspected: InspectedImage, layer: InspectedLayer, place: int) -> str:
    panels.sampling(axis, inspected, layer, levels=[place], largest=40)
    return ""


def _fit(inspected: InspectedImage, count: int, width: float) -> tuple[float, float]:
    """Size of the panels of a row: all of up to eight side by side, and no higher than 2 inches."""
    columns = max(min(count, PER_ROW), 4)
    widest = (width - 2 * MARGIN - (columns - 1) * GAP / 2) / columns
    return panel_size(inspected.image, 2.0, widest)


def footnote(layer: InspectedLayer) -> str:
    """How the panels of a layer are to be read."""
    said = []
    if layer.weights is not None or layer.prior_logits is not None:
        said.append("Heat maps run from 0 to the panel's own peak, dark to light.")
    if layer.weights is not None:
        said.append("10x: ten times what looking everywhere alike would give.")
    if layer.points is not None:
        said.append("Points: large and light is a large weight; zoomed to box and points.")
    if layer.salient_points is not None:
        said.append("Dashed: the region in which the aligner looked, zoomed; one point per head.")
    return " ".join(said)
