"""Contact sheet: one row per query of an image."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from . import panels
from .canvas import FAINT, Canvas, panel_size
from .inspected import InspectedImage, InspectedLayer, InspectedQuery

GAP, HEAD, MARGIN = 0.16, 1.08, 0.15  # inches
SLOT = 1.85  # width of a heading
CHART = 2.0  # width of the charts
NAMED = 8  # maximum number of queries in the title

Draw = Callable[[Any, InspectedImage], Any]


def draw_contact_sheet(inspected: InspectedImage, layer: int | None = None) -> np.ndarray:
    """Draw one row per query: boxes, attention, scores.

    Args:
        inspected: From ``inspect_image``.
        layer: Decoder layer whose attention is shown, counted from 1; None: the last.

    Shape:
        returns: (H, W, 3) uint8 RGB

    Raises:
        ValueError: if there is no such layer, or no query to show.
    """
    if not inspected.queries:
        raise ValueError("The inspected image has no query to show; inspect it with top_k >= 1.")
    shown = [query.layer(layer) for query in inspected.queries]
    number = layer or len(inspected.queries[0].layers)
    columns = len(sheet_columns(inspected.queries[0], shown[0]))
    width, height = panel_size(inspected.image, 1.7, 2.9)
    row = max(height, 1.2) + 0.42
    slot = max(width, SLOT) + GAP
    page = Canvas(2 * MARGIN + columns * slot + CHART + 0.3, HEAD + row * len(shown) + MARGIN)
    page.title(MARGIN, 0.12, sheet_title(inspected), inspected.file, 12)
    page.text(MARGIN, 0.36, f"attention of decoder layer {number}", 8.5, color=FAINT)
    for index, (query, own) in enumerate(zip(inspected.queries, shown, strict=True)):
        top = HEAD + index * row
        name = inspected.name(query.label)
        page.text(MARGIN, top - 0.18, f"{name}  {query.score:.2f}", 9, weight="bold")
        for column, (heading, draw) in enumerate(sheet_columns(query, own)):
            left = MARGIN + column * slot
            axis = page.panel(left, top, width, height)
            draw(axis, inspected)
            if index == 0:
                page.text(left, HEAD - 0.44, heading, 8.5)
        left = MARGIN + columns * slot + 0.25
        page.text(left, top - 0.16, f"query {query.query}", 7.5, color=FAINT)
        below = 0.0
        if own.level_weights is not None:
            below = 0.16 + 0.15 * len(own.level_weights)
            axis = page.panel(left + 0.35, top + height - below + 0.28, CHART - 0.45, below - 0.12)
            panels.bars(axis, own)
        axis = page.panel(left, top, CHART - 0.1, max(height - below - 0.1, 0.5))
        panels.scores(axis, inspected, query, number)
        if index == 0:
            page.text(left, HEAD - 0.44, "class scores per layer", 8.5)
    return page.pixels()


def sheet_title(inspected: InspectedImage) -> str:
    """Title of the sheet, which names the queries or says that they are top-scoring."""
    numbers = [str(query.query) for query in inspected.queries]
    if not inspected.chosen:
        which = "the top-scoring queries" if len(numbers) > 1 else "the top-scoring query"
    elif len(numbers) == 1:
        which = f"query {numbers[0]}"
    elif len(numbers) <= NAMED:
        which = f"queries {', '.join(numbers[:-1])} and {numbers[-1]}"
    else:
        which = f"{len(numbers)} chosen queries"
    return f"What {which} looked at"


def sheet_columns(query: InspectedQuery, layer: InspectedLayer) -> list[tuple[str, Draw]]:
    """Heading and drawing function of each panel that the layer has data for."""
    columns: list[tuple[str, Draw]] = [
        ("boxes, layer by layer", partial(panels.refinement, query=query))
    ]
    if layer.attention is not None:
        draw: Draw = partial(panels.heat, maps=layer.attention, corners=layer.box)
        columns.append(("attention, sum of heads", draw))
    if layer.points is not None:
        draw = partial(panels.sampling, layer=layer, largest=30, key=True)
        columns.append(("sampling points, all heads", draw))
    if layer.prior is not None:
        maps = [maps.mean(0) for maps in layer.prior]
        draw = partial(panels.heat, maps=maps, corners=layer.box, shares=False)
        columns.append(("spatial prior, mean of heads", draw))
    if layer.salient_points is not None:
        columns.append(("region and salient points", partial(panels.salient, layer=layer)))
    return columns
