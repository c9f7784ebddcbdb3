"""Line charts with matplotlib, as picture files or as SVG for light and dark pages."""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from .run_history import Point

# Okabe and Ito's colours, darkened for white backgrounds, and marks, to be distinguishable with
# colour blindness. Later lines have other dashes.
COLOURS = (
    "#0072b2", "#c04a00", "#00835f", "#a8558a", "#8a6d00", "#2f86b8", "#4b4f8f", "#6b6b6b",
)  # fmt: skip
MARKS = "os^Dv*PX"
_DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (8, 2, 2, 2)))
_INK, _GRID = "#5b636d", "#dfe0e2"
# Variables of the colours in a page's style sheet.
_VARIABLES = {_INK: "--soft", _GRID: "--line"} | {c: f"--s{n}" for n, c in enumerate(COLOURS)}
_POINTS = 400  # lines with more points are smoothed by means of neighbours
_LABEL_GAP = 0.065  # between names at the ends of lines, relative to the axis


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Args:
        name: Label at the line or in the legend.
        look: Number of colour, mark and dashes; equal for lines of one run.
        x, y: Points, x ascending. Lines without points are left out.
        band: Lowest and highest y at each x, drawn as a shaded area; or None.
        connected: Whether points are connected, or single marks.
        faint: Whether the line is thinner than others.
    """

    name: str
    look: int
    x: Sequence[float]
    y: Sequence[float]
    band: tuple[Sequence[float], Sequence[float]] | None = None
    connected: bool = True
    faint: bool = False

    @classmethod
    def of(
        cls, name: str, look: int, curve: Sequence[Point], by_time: bool = False, **style: Any
    ) -> Line:
        """Make a line from a curve of a run's history, by progress or minutes."""
        x = [point.minutes if by_time else point.progress for point in curve]
        return cls(name, look, x, [point.value for point in curve], **style)


@dataclass(frozen=True)
class Chart:
    """Lines on common axes.

    Args:
        lines: In the order of the legend.
        x_label, y_label, title: With units.
        y_range: Limits of the y axis; None: from the data.
        log_y: Whether the y axis is logarithmic, if all values are positive and differ enough.
        levels: Names and heights of horizontal lines; lines above the axis are only in the legend.
        note: Small print in the lower left corner.
    """

    lines: Sequence[Line]
    x_label: str
    y_label: str = ""
    title: str = ""
    y_range: tuple[float | None, float | None] = (None, None)
    log_y: bool = False
    levels: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


def save_charts(charts: Sequence[Chart], path: str | Path, title: str = "") -> None:
    """Write charts side by side to one picture, with a legend in each."""
    figure = Figure(figsize=(5.3 * len(charts), 4.4), layout="constrained")
    for axis, chart in zip(figure.subplots(1, len(charts), squeeze=False)[0], charts, strict=True):
        entries = [(handle, line.name) for handle, line in _draw(axis, chart)]
        entries += _draw_levels(axis, chart)
        axis.set_title(chart.title, fontsize=10.5, parse_math=False)
        axis.set_ylabel(chart.y_label)
        if entries:
            # set later, because matplotlib hides labels with a leading underscore
            legend = axis.legend([handle for handle, _ in entries], [""] * len(entries), fontsize=8)
            for text, (_, name) in zip(legend.get_texts(), entries, strict=True):
                text.set(text=printable(name), parse_math=False)
    figure.suptitle(title, parse_math=False)
    figure.savefig(path, dpi=100)


def chart_svg(chart: Chart, name: str) -> str:
    """Draw a chart as an SVG element for an HTML page, with names at the ends of several lines.

    Equal charts give equal SVG. Colours are variables of the page's style sheet (``--s0`` to
    ``--s7``, ``--soft``, ``--line``), labels are text, and nothing is loaded.

    Args:
        chart: The chart; its title is not drawn, because pages have captions.
        name: Unique prefix of ids in the page.
    """
    style = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9, "axes.linewidth": 0.8}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # browsers have other fonts
        figure = Figure(figsize=(420 / 72, 270 / 72), layout="constrained")
        figure.patch.set_visible(False)
        axis = figure.subplots()
        axis.patch.set_visible(False)
        lines = [line for _, line in _draw(axis, chart)]
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(length=0, colors=_INK)
        axis.spines["bottom"].set_color(_INK)
        axis.xaxis.label.set_color(_INK)
        if len(lines) > 1:
            _name_ends(axis, lines)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    svg = file.getvalue().partition("<svg")[2]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'^[^>]*?(viewBox="[^"]*")[^>]*>', r" \1>", svg.strip(), count=1)
    svg = re.sub(r" font-family: [^;]*;", "", svg.replace("xlink:href", "href"))
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(f": {colour}", f": var({variable})")
    return f'<svg xmlns="http://www.w3.org/2000/svg" role="img"{svg}'


def printable(text: str) -> str:
    """Replace control characters and undecodable bytes, which pages and pictures cannot hold."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(sign if sign.isprintable() or sign in "\n\t " else "\ufffd" for sign in text)


def shorten(name: str, longest: int = 14) -> str:
    """Shorten a long name in the middle."""
    if len(name) <= longest:
        return name
    head = longest // 2
    return f"{name[:head]}…{name[-(longest - 1 - head) :]}"


def _draw(axis: Any, chart: Chart) -> list[tuple[Any, Line]]:
    """Draw lines and axes; return the artist of each line with points."""
    drawn: list[tuple[Any, Line]] = []
    for line in (_thin(line) for line in chart.lines if len(line.x)):
        style: dict[str, Any] = dict(color=_colour(line), linewidth=1.0 if line.faint else 1.8)
        style |= dict(marker=MARKS[line.look % len(MARKS)], markersize=4, clip_on=False)
        style |= dict(markevery=max(len(line.x) // 8, 1), gid=f"line{len(drawn)}")
        style["linestyle"] = _DASHES[line.look // len(COLOURS) % len(_DASHES)]
        if not line.connected:
            style["linestyle"] = "none"
        drawn.append((*axis.plot(line.x, line.y, **style), line))
        if line.band is not None:
            axis.fill_between(line.x, *line.band, color=_colour(line), alpha=0.15, linewidth=0)
    values = [y for _, line in drawn for y in line.y]
    if chart.log_y and values and max(values) > 1.2 * min(values) > 0:
        axis.set_yscale("log")
        decades = max(values) / min(values)
        subs = (1, 1.5, 2, 3, 4, 6, 8) if decades < 5 else (1, 2, 5) if decades < 300 else (1,)
        axis.yaxis.set_major_locator(LogLocator(subs=subs))
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.yaxis.set_minor_locator(NullLocator())
    else:
        axis.set_ylim(*chart.y_range)
    axis.set_xlim(0, None)
    axis.set_xlabel(chart.x_label)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=chart.x_label == "epoch"))
    axis.grid(color=_GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    if chart.note:
        note = "\n".join(textwrap.wrap(chart.note, 60))
        axis.text(0.03, 0.03, note, transform=axis.transAxes, fontsize=7, color=_INK)
    return drawn


def _draw_levels(axis: Any, chart: Chart) -> list[tuple[Any, str]]:
    """Draw horizontal lines, except far above the curves; return their legend."""
    drawn: list[tuple[Any, str]] = []
    top = chart.y_range[1]
    for name, height in chart.levels.items():
        shown = top is None or height <= top
        (handle,) = axis.plot(
            [0, 1] if shown else [], [height] * 2 if shown else [], color="0.5", linewidth=0.8,
            linestyle=":", transform=axis.get_yaxis_transform(),
        )  # fmt: skip
        drawn.append((handle, name if shown else f"{name}: above the picture"))
    return drawn


def _colour(line: Line) -> str:
    return COLOURS[line.look % len(COLOURS)]


def _thin(line: Line) -> Line:
    """Replace points by means of neighbours if there are too many; keep the last point."""
    size = -(-len(line.x) // _POINTS)
    if size == 1:
        return line
    parts = [slice(n, n + size) for n in range(0, len(line.x) - 1, size)]
    x, y = ([*(fmean(values[part]) for part in parts), values[-1]] for values in (line.x, line.y))
    return replace(line, x=x, y=y, band=None)


def _name_ends(axis: Any, lines: Sequence[Line]) -> None:
    """Write names at the ends of lines, without overlap."""
    to_share = (axis.transScale + axis.transLimits).transform
    ends = [(float(to_share((line.x[-1], line.y[-1]))[1]), line) for line in lines]
    ends.sort(key=lambda end: end[0])
    places = [height for height, _ in ends]
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + _LABEL_GAP)
    places[-1] = min(places[-1], 1.0)
    for index in reversed(range(len(places) - 1)):
        places[index] = min(places[index], places[index + 1] - _LABEL_GAP)
    for place, (_, line) in zip(places, ends, strict=True):
        axis.annotate(
            shorten(printable(line.name)), (line.x[-1], line.y[-1]), (1.02, place), va="center",
            textcoords="axes fraction", color=_colour(line), weight="bold", parse_math=False,
            arrowprops=dict(arrowstyle="-", color=_colour(line), alpha=0.4, linewidth=0.8),
        )  # fmt: skip
