"""Page of one query: boxes, attention of each head and level, scores."""

from __future__ import annotations

from functools import partial

import numpy as np

from . import panels
from .canvas import COLOURS, FAINT, Canvas, panel_size
from .contact_sheet import Draw, sheet_columns
from .inspected import InspectedImage, InspectedLayer

MARGIN, GAP, TITLE = 0.2, 0.22, 0.38  # inches
CHART = 2.5
PER_ROW = 8  # heads in a row
SLOTS = (2.1, 1.0, 1.5)  # widths of titles in the three rows


def draw_detection(
    inspected: InspectedImage, index: int = 0, layer: int | None = None
) -> np.ndarray:
    """Draw one of the inspected queries.

    Args:
        inspected: From ``inspect_image``.
        index: Index into ``inspected.queries``.
        layer: Decoder layer whose attention is shown, counted from 1; None: the last.

    Shape:
        returns: (H, W, 3) uint8 RGB

    Raises:
        ValueError: if there is no such layer.
        IndexError: if index is out of range.
    """
    count = len(inspected.queries)
    if not -count <= index < count:
        raise IndexError(
            f"index={index} is out of range; number of inspected queries: {count}. To draw a query "
            "by its number, inspect the image with queries=[number]."
        )
    query = inspected.queries[index]
    shown = query.layer(layer)
    number = layer or len(query.layers)
    columns = sheet_columns(query, shown)
    width, height = panel_size(inspected.image, 2.9, 4.2)
    slot = max(width, SLOTS[0]) + GAP
    rows = [row for row in (_heads(shown), _levels(shown)) if row]
    page_width = 2 * MARGIN + max(len(columns) * slot + CHART, PER_ROW * (SLOTS[1] + GAP / 2))
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
    said += f", which sees level{'s' * (len(shown.levels) > 1)} {levels}"
    page.text(MARGIN, 0.38, said, 8.5, color=FAINT)
    for column, (heading, draw) in enumerate(columns):
        axis = page.panel(MARGIN + column * slot, top, width, height)
        draw(axis, inspected)
        panels.title(axis, heading)
    left = MARGIN + len(columns) * slot + 0.25
    axis = page.panel(left, top, CHART - 0.35, height - (0.1 if shown.level_weights is None else 1))
    panels.scores(axis, inspected, query, number)
    panels.title(axis, "class scores per layer")
    if shown.level_weights is not None:
        axis = page.panel(left + 0.3, top + height - 0.42, CHART - 0.6, 0.5)
        panels.bars(axis, shown)
        panels.title(axis, "scale selection", 8)
    for (small, tall), row, count in zip(sizes, rows, lines, strict=True):
        for place, (heading, colour, draw_small) in enumerate(row):
            line, column = divmod(place, PER_ROW)
            step = max(small, SLOTS[1 if row is rows[0] else 2]) + GAP / 2
            x, y = MARGIN + column * step, below + TITLE + line * (tall + TITLE)
            axis = page.panel(x, y, small, tall)
            peak = draw_small(axis, inspected) or 0.0
            panels.title(axis, heading.format(f"{peak:.{0 if peak >= 10 else 1}f}"), 7.5)
            for spine in axis.spines.values():
                spine.set(color=colour, linewidth=0.5 if colour == FAINT else 1.6)
        below += count * (tall + TITLE)
    page.text(MARGIN, page.height - 0.28, footnote(shown), 7.5, color=FAINT)
    return page.pixels()


Row = list[tuple[str, str, Draw]]


def _heads(layer: InspectedLayer) -> Row:
    """Heading (with a placeholder for the peak), frame colour and drawing of every head."""
    row: Row = []
    maps, framed = layer.weights, layer.salient_points is not None
    for head in range(len(maps[0]) if maps else 0 if layer.points is None else len(layer.points)):
        colour = COLOURS[head % len(COLOURS)] if framed else FAINT
        if maps:
            point = None if layer.salient_points is None else layer.salient_points[head]
            own = [level[head] for level in maps]
            draw: Draw = partial(
                panels.heat, maps=own, corners=layer.box, point=point, colour=colour
            )
            row.append((f"head {head + 1}, peak {{}}x", colour, draw))
        else:
            draw = partial(panels.sampling, layer=layer, heads=[head], largest=40)
            row.append((f"head {head + 1}", colour, draw))
    return row


def _levels(layer: InspectedLayer) -> Row:
    """As ``_heads``, for every level, if there are several."""
    row: Row = []
    for place, level in enumerate(layer.levels if len(layer.levels) > 1 else ()):
        if layer.attention is not None:
            own = layer.attention[place]
            cells, share = ", {} x {} cells".format(*own.shape), float(own.sum())
            draw: Draw = partial(panels.heat, maps=[own], corners=layer.box)
        elif layer.point_weights is not None:
            cells, share = "", float(layer.point_weights[:, place].sum(-1).mean())
            draw = partial(panels.sampling, layer=layer, levels=[place], largest=40)
        else:
            continue
        row.append((f"level {level}{cells}\n{share:.0%} of attention", FAINT, draw))
    return row


def _fit(inspected: InspectedImage, count: int, width: float) -> tuple[float, float]:
    """Size of the panels in a row of up to eight, at most 2 inches high."""
    columns = max(min(count, PER_ROW), 4)
    widest = (width - 2 * MARGIN - (columns - 1) * GAP / 2) / columns
    return panel_size(inspected.image, 2.0, widest)


def footnote(layer: InspectedLayer) -> str:
    """Explain the panels of a layer."""
    said = []
    if layer.weights is not None or layer.prior_logits is not None:
        said.append("Heat maps run from 0 to the panel's own peak, dark to light.")
    if layer.weights is not None:
        said.append("10x: ten times the value of uniform attention.")
    if layer.points is not None:
        said.append("Points: large and light is a large weight; zoomed to box and points.")
    if layer.salient_points is not None:
        said.append("Dashed: the aligner's region, zoomed; one point per head.")
    return " ".join(said)
