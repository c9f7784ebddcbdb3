"""The comparison as a picture: AP against epochs and against minutes of the CPU."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .reference import Reference
from .results import Curve, Summary

MARKERS = "os^Dv*PX"
_HEADROOM = 1.2  # times the best AP, as far up as the curves' panels go


def plot_convergence(
    summaries: Sequence[Summary],
    curves: Sequence[Curve],
    path: str | Path,
    references: Sequence[Reference] = (),
) -> None:
    """Write the picture; each set of references has a panel of its own, marked as such."""
    panels = 2 + len(references)
    figure = Figure(figsize=(5.2 * panels, 4.6), layout="constrained")
    axes = list(figure.subplots(1, panels))
    colormap = matplotlib.colormaps["tab10" if len(summaries) <= 10 else "tab20"]
    colours = [colormap(index) for index in range(colormap.N)]
    for index, summary in enumerate(summaries):
        style = dict(color=colours[index % len(colours)], marker=MARKERS[index % len(MARKERS)])
        _draw(axes[0], summary.epochs, summary, style)
        _draw(axes[1], _cpu_minutes(summary, curves), summary, style)
    top = _HEADROOM * max((ap for summary in summaries for ap in summary.high), default=0.0)
    for target in [reached.target for reached in summaries[0].reached] if summaries else []:
        for axis in axes[:2]:
            _draw_target(axis, target, top)
    seeds = sorted({curve.seed for curve in curves})
    axes[0].set(xlabel="epoch", title=_title(len(seeds)))
    axes[1].set(xlabel="CPU minutes of training", title="the same, by computing time")
    axes[0].legend(fontsize=8)
    for axis, reference in zip(axes[2:], references, strict=True):
        _draw_reference(axis, reference)
    for axis in axes:
        axis.set(ylabel="COCO AP", ylim=(0, None), xlim=(0, None))
        axis.grid(alpha=0.3)
    for axis in axes[:2]:
        axis.set_ylim(0, top or None)
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(path, dpi=100)


def _draw_target(axis: Axes, target: float, top: float) -> None:
    """A line, or where the curves would be squeezed by it, a word in the legend."""
    style: dict[str, Any] = dict(color="0.5", linewidth=0.8, linestyle=":")
    if target <= top:
        axis.axhline(target, label=f"target {target:.3f}", **style)
    else:
        axis.plot([], [], label=f"target {target:.3f}: above the picture", **style)


def _title(seeds: int) -> str:
    return f"mean and range over {seeds} seeds" if seeds > 1 else "one seed"


def _draw(axis: Axes, x: Sequence[float], summary: Summary, style: dict) -> None:
    every = max(len(x) // 8, 1)
    axis.plot(x, summary.mean, label=summary.name, markevery=every, markersize=4, **style)
    axis.fill_between(x, summary.low, summary.high, color=style["color"], alpha=0.15, linewidth=0)


def _cpu_minutes(summary: Summary, curves: Sequence[Curve]) -> list[float]:
    """Minutes until each epoch of a summary, mean over the seeds."""
    own = [
        {point.epoch: point.cpu_minutes for point in curve.points}
        for curve in curves
        if curve.name == summary.name and curve.points
    ]
    return [float(np.mean([minutes[epoch] for minutes in own])) for epoch in summary.epochs]


def _draw_reference(axis: Axes, reference: Reference) -> None:
    colours = matplotlib.colormaps["Dark2"]  # not those of the configs, which they are not
    for index, (name, pairs) in enumerate(reference.series.items()):
        epochs, values = zip(*pairs, strict=True)
        few = len(pairs) < 4  # then it is not known what lies between them
        axis.plot(
            epochs,
            values,
            color=colours(index % colours.N),
            marker=MARKERS[index % len(MARKERS)] if few else "",
            linestyle="none" if few else "-",
            clip_on=False,
            label=name,
        )
    axis.set_title(f"for reference: {reference.title}", fontsize=10)
    axis.set_xlabel("epoch")
    source = "\n".join(textwrap.wrap(reference.source, 60))
    axis.text(0.03, 0.03, source, transform=axis.transAxes, fontsize=7, color="0.3")
    axis.legend(fontsize=8, loc="center right")
