"""Panels of one query over an image, drawn on given axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from .canvas import COLOURS, FAINT, INK
from .heat import blend, density
from .inspected import InspectedImage, InspectedLayer, InspectedQuery

BOX = "#56B4E9"  # the detection, on heat maps
HALO = [patheffects.withStroke(linewidth=3.2, foreground="white")]
DASHED = (0, (3, 2))
MARKERS = "os^Dv<>p"  # one per level


def title(axis: Any, text: str, size: float = 8.5) -> None:
    """A left-aligned title in plain text."""
    axis.set_title(text, fontsize=size, color=INK, loc="left", pad=3, parse_math=False)


def show(axis: Any, image: np.ndarray, pixels: np.ndarray | None = None) -> None:
    """Show the image, or other pixels in its place, in coordinates of the image's pixels."""
    h, w = image.shape[:2]
    shown = image if pixels is None else pixels
    axis.imshow(shown, extent=(0, w, h, 0), interpolation="bilinear", aspect="auto")
    axis.set(xlim=(0, w), ylim=(h, 0), xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(color=FAINT, linewidth=0.5)


def grey(image: np.ndarray) -> np.ndarray:
    """The image with less contrast and without colour, as a background."""
    light = image @ np.array([0.299, 0.587, 0.114])
    return np.repeat((110 + light * 0.55)[..., None], 3, axis=-1).clip(0, 255).astype(np.uint8)


def box(axis: Any, corners: np.ndarray, colour: Any = BOX, width: float = 1.6, **style) -> None:
    """Draw a rectangle, clipped to the image."""
    x1, y1, x2, y2 = corners
    style = dict(fill=False, edgecolor=colour, linewidth=width, path_effects=HALO) | style
    axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, **style))


def refinement(axis: Any, inspected: InspectedImage, query: InspectedQuery) -> None:
    """Draw the boxes of all layers, from light and thin to dark and thick."""
    show(axis, inspected.image)
    count = len(query.layers)
    colours = matplotlib.colormaps["viridis"](np.linspace(0.95, 0.0, count))
    start = query.layers[0].reference
    if start is not None and len(start) == 4:
        box(axis, start, FAINT, 1.0, linestyle=DASHED, label="start")
    elif start is not None:
        cross(axis, start, label="start")
    for index, layer in enumerate(query.layers):
        width = 1.0 + 1.4 * (index + 1) / count
        box(axis, layer.box, colours[index], width, label=str(index + 1))
    legend_below(axis, count + 1)


def legend_below(axis: Any, entries: int) -> None:
    """Draw a legend below the panel, eight entries per line."""
    place: dict[str, Any] = dict(loc="upper left", bbox_to_anchor=(-0.02, -0.005))
    gaps = dict(handlelength=1.0, handletextpad=0.4, columnspacing=0.9, borderaxespad=0.1)
    axis.legend(ncols=min(entries, 8), fontsize=7, frameon=False, **place, **gaps)


def cross(axis: Any, position: np.ndarray, colour: str = "#D55E00", label: str = "") -> None:
    """Mark a reference point by a cross."""
    style = dict(marker="P", s=46, color=colour, edgecolors="white", linewidths=0.9, zorder=6)
    axis.scatter(*position[:2], label=label or None, **style)


def heat(
    axis: Any,
    inspected: InspectedImage,
    maps: Sequence[np.ndarray],
    corners: np.ndarray,
    *,
    shares: bool = True,
    point: np.ndarray | None = None,
    colour: str = INK,
) -> float:
    """Draw the maps of all levels as one heat map over the grey image; return its peak.

    Args:
        axis: Axes to draw on.
        inspected: The image.
        maps: Per level (h, w).
        corners: The detection's box.
        shares: Whether values are shares, shown per area in multiples of the mean; otherwise values
            are averaged over levels.
        point, colour: A salient point, (2,), and its colour.
    """
    values = density(maps, shares)
    peak = float(values.max())
    show(axis, inspected.image, blend(grey(inspected.image), values / max(peak, 1e-12)))
    box(axis, corners, width=1.3, path_effects=[])
    if point is not None:
        axis.scatter(*point, s=34, color=colour, edgecolors=INK, linewidths=0.7, zorder=5)
    return peak


def sampling(
    axis: Any,
    inspected: InspectedImage,
    layer: InspectedLayer,
    *,
    heads: Sequence[int] | None = None,
    levels: Sequence[int] | None = None,
    largest: float = 60.0,
    key: bool = False,
) -> None:
    """Draw deformable attention's points, coloured and sized by weight, around the detection.

    ``heads`` and ``levels`` select points; ``key`` adds a legend of levels.
    """
    assert layer.points is not None and layer.point_weights is not None
    show(axis, inspected.image, grey(inspected.image))
    box(axis, layer.box, width=1.3, path_effects=[])
    peak = float(layer.point_weights.max())
    chosen = slice(None) if heads is None else list(heads)
    for level in range(layer.points.shape[1]) if levels is None else levels:
        points = layer.points[chosen, level].reshape(-1, 2)
        weights = layer.point_weights[chosen, level].reshape(-1)
        order = np.argsort(weights)  # largest weights on top
        colours = dict(c=weights[order], cmap="plasma", vmin=0, vmax=peak, zorder=5)
        size = 8 + largest * weights[order] / peak
        axis.scatter(*points[order].T, s=size, **colours, **_marker(level))
    if layer.reference is not None:
        centre = layer.reference.reshape(-1, 2).mean(0)  # of a box, or the point itself
        cross(axis, centre, "#009E73", "reference")
    _zoom(axis, inspected, layer.points.reshape(-1, 2), layer.box.reshape(2, 2))
    if key:
        for place, level in enumerate(layer.levels):
            axis.scatter([], [], s=30, color="#7E03A8", label=f"level {level}", **_marker(place))
        legend_below(axis, 1 + len(layer.levels))


def _marker(place: int) -> dict[str, Any]:
    """One per level."""
    return dict(marker=MARKERS[place % len(MARKERS)], edgecolors="white", linewidths=0.5)


def salient(axis: Any, inspected: InspectedImage, layer: InspectedLayer) -> None:
    """Draw the aligner's region, dashed, and one numbered point per head."""
    assert layer.salient_points is not None
    show(axis, inspected.image)
    if layer.reference is not None and len(layer.reference) == 4:
        box(axis, layer.reference, INK, 1.2, linestyle=DASHED)
    for head, (x, y) in enumerate(layer.salient_points):
        colour = COLOURS[head % len(COLOURS)]
        axis.scatter(x, y, s=75, color=colour, edgecolors=INK, linewidths=0.7, zorder=5)
        style: dict[str, Any] = dict(ha="center", va="center_baseline", fontsize=6, zorder=6)
        axis.text(x, y, str(head + 1), color=_ink_on(colour), clip_on=True, **style)
    corners = [] if layer.reference is None else [layer.reference.reshape(-1, 2)]
    _zoom(axis, inspected, layer.salient_points, layer.box.reshape(2, 2), *corners)


def scores(
    axis: Any, inspected: InspectedImage, query: InspectedQuery, number: int, most: int = 3
) -> None:
    """Draw the probability of the top classes per layer; ``number`` marks the shown layer."""
    values = np.stack([layer.scores for layer in query.layers])
    steps = np.arange(1, len(values) + 1)
    for rank, label in enumerate(np.argsort(-values[-1])[:most]):
        name = inspected.name(int(label))
        style = dict(color=("#0072B2", "#E69F00", "#999999")[rank % 3], marker="os^"[rank % 3])
        axis.plot(steps, values[:, label], markersize=4, lw=1.8, zorder=4 - rank, **style)
        axis.plot([], [], markersize=4, label=name, **style)
    axis.axvline(number, color=FAINT, linewidth=0.8, linestyle=":", zorder=0)
    axis.set(ylim=(0, 1), xlim=(0.7, len(values) + 0.3), yticks=[0, 0.5, 1])
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axis.tick_params(labelsize=7, colors=INK, length=2)
    axis.grid(alpha=0.25, linewidth=0.5)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xlabel("decoder layer", fontsize=7, labelpad=1)
    legend = axis.legend(fontsize=7, frameon=False, loc="upper left", borderaxespad=0)
    for text in legend.get_texts():
        text.set_parse_math(False)


def bars(axis: Any, layer: InspectedLayer) -> None:
    """Draw the layer's share of each level as bars with percentages."""
    assert layer.level_weights is not None
    rows = np.arange(len(layer.levels))
    axis.barh(rows, layer.level_weights, color="#0072B2", height=0.6)
    for row, share in enumerate(layer.level_weights):
        axis.text(share + 0.02, row, f"{share:.0%}", va="center", fontsize=7, color=INK)
    axis.set(xlim=(0, 1.15), ylim=(len(rows) - 0.4, -0.6), xticks=[], yticks=rows)
    axis.set_yticklabels([f"level {level}" for level in layer.levels], fontsize=7)
    axis.tick_params(length=0)
    axis.spines[["top", "right", "bottom"]].set_visible(False)


def _zoom(axis: Any, inspected: InspectedImage, *points_of: np.ndarray) -> None:
    """Zoom to points (n, 2), with the image's aspect ratio and within the image."""
    points = np.concatenate(points_of)
    h, w = inspected.image.shape[:2]
    low = points.min(0).clip(0, (w, h))
    high = points.max(0).clip(0, (w, h))
    share = min(1.0, max(*((high - low) / (w, h)), 0.15) * 1.2)
    half = np.array([w, h]) * share / 2
    centre = ((low + high) / 2).clip(half, np.array([w, h]) - half)
    (x1, y1), (x2, y2) = centre - half, centre + half
    axis.set(xlim=(x1, x2), ylim=(y2, y1))


def _ink_on(colour: str) -> str:
    """Black or white, whichever has more contrast."""
    r, g, b, _ = to_rgba(colour)
    return "black" if 0.299 * r + 0.587 * g + 0.114 * b > 0.45 else "white"
