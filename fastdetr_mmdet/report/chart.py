"""Line charts as SVG, readable without colours: lines have dashes, marks and names."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from .markup import Html, el

WIDTH, HEIGHT = 420, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 12, 40
SERIES = 8  # looks that style.css and _DASHES tell apart
_DASHES = (None, "7 3", "2 3", "9 3 2 3", "4 2", "12 4", "1 2", "6 2 1 2 1 2")
_LABEL_GAP = 14  # between the names of two lines
_LETTER = 7.6  # width of a letter of a name, or of a figure at an axis
_TICK_GAP = 6  # between a figure and the y axis
_MARKS = 25  # a line with more points gets no marks
_POINTS = 400  # a line with more is drawn through means of neighbours


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Args:
        name: Written at its end.
        look: Number of the run, which decides on colour and dashes.
        points: (x, y), x rising; empty lines are left out.
    """

    name: str
    look: int
    points: Sequence[tuple[float, float]]


def line_chart(
    lines: Sequence[Line], x_label: str, y_label: str, log_y: bool = False, from_zero: bool = False
) -> Html:
    """A chart; lines without points are left out, very long ones are smoothed.

    Args:
        lines: One per run.
        x_label, y_label: Of the axes, with units.
        log_y: A logarithmic axis if all values are above zero.
        from_zero: Whether the y axis begins at zero.
    """
    lines = [_thin(line) for line in lines if line.points]
    if not lines:
        return el("p", "Nothing was logged that could be drawn here.", cls="empty")
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    log_y = log_y and min(ys) > 0
    x_ticks = [tick for tick in _ticks(0, max(xs), 5) if tick <= max(xs)]
    low, high = (0.0 if from_zero else min(ys)), max(ys)
    y_ticks = _log_ticks(low, high) if log_y else _ticks(low, high, 5)
    longest = max(len(shorten(line.name)) for line in lines) if len(lines) > 1 else 0
    right = RIGHT + _LETTER * longest
    left = max(LEFT, _TICK_GAP + 2 + _LETTER * max(len(f"{tick:g}") for tick in y_ticks))
    x_of = _scale(0, max(xs), left, WIDTH - right, False)
    bottom, top = min([low, *y_ticks[:1]]), max([high, *y_ticks[-1:]])
    y_of = _scale(bottom, top, HEIGHT - BOTTOM, TOP, log_y)

    end = WIDTH - right
    parts = []
    for tick in y_ticks:
        y = y_of(tick)
        parts.append(el("line", x1=_n(left), x2=end, y1=_n(y), y2=_n(y), cls="grid"))
        parts.append(el("text", f"{tick:g}", x=_n(left - _TICK_GAP), y=_n(y + 4), cls="tick y"))
    for tick in x_ticks:
        x = x_of(tick)
        parts.append(el("text", f"{tick:g}", x=_n(x), y=HEIGHT - BOTTOM + 17, cls="tick x"))
    base = HEIGHT - BOTTOM
    parts.append(el("line", x1=_n(left), x2=end, y1=base, y2=base, cls="axis"))
    parts.append(el("text", x_label, x=_n((left + end) / 2), y=HEIGHT - 5, cls="label x"))
    ends = []
    for line in lines:
        dots = [(x_of(x), y_of(y)) for x, y in line.points]
        parts.append(_draw(line, dots))
        ends.append((dots[-1], line))
    if len(lines) > 1:
        parts += _names(ends, end)
    drawing = el(
        "svg",
        parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{y_label} against {x_label}",
    )
    return el("figure", el("figcaption", y_label), drawing, cls="chart")


def shorten(name: str, longest: int = 14) -> str:
    """A name with its middle left out where it is too long."""
    if len(name) <= longest:
        return name
    head = longest // 2
    return f"{name[:head]}…{name[-(longest - 1 - head) :]}"


def _thin(line: Line) -> Line:
    """Means of as many neighbours as it takes; the last point stays."""
    size = -(-len(line.points) // _POINTS)
    if size == 1:
        return line
    groups = [line.points[n : n + size] for n in range(0, len(line.points) - 1, size)]
    means = [(fmean(x for x, _ in group), fmean(y for _, y in group)) for group in groups]
    return Line(line.name, line.look, [*means, line.points[-1]])


def look_of(number: int) -> str:
    """The class of style.css for a run's number."""
    return f"s{number % SERIES}"


def _draw(line: Line, dots: list[tuple[float, float]]) -> Html:
    look = look_of(line.look)
    title = el("title", line.name)
    path = "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in dots)
    dashes = _DASHES[(line.look + 3 * (line.look // SERIES)) % SERIES]  # other pairs from 8 on
    parts = [el("path", title, d=path, cls=f"line {look}", stroke_dasharray=dashes)]
    marked = dots if len(dots) <= _MARKS else dots[-1:]
    for (x, y), (px, py) in zip(marked, line.points[-len(marked) :], strict=True):
        value = el("title", f"{line.name}: {py:.4g} at {px:.4g}")
        parts.append(el("circle", value, cx=_n(x), cy=_n(y), r=2.6, cls=f"dot {look}"))
    return el("g", parts)


def _names(ends: list[tuple[tuple[float, float], Line]], x: float) -> list[Html]:
    """Names at the ends of lines, moved apart where lines end close to each other."""
    ends = sorted(ends, key=lambda item: item[0][1])
    places = [y for (_, y), _ in ends]
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + _LABEL_GAP)
    overhang = max(places[-1] - (HEIGHT - BOTTOM), 0) if places else 0
    places = [max(place - overhang, 8) for place in places]
    for index in range(len(places) - 2, -1, -1):
        places[index] = min(places[index], places[index + 1] - _LABEL_GAP)
    parts = []
    for place, ((end_x, end_y), line) in zip(places, ends, strict=True):
        look = look_of(line.look)
        if x - end_x > _LABEL_GAP:  # a line that stops before the others
            path = f"M{_n(end_x + 5)} {_n(end_y)}L{_n(x + 3)} {_n(place)}"
            parts.append(el("path", d=path, cls=f"leader {look}"))
        name = el("title", line.name), shorten(line.name)
        parts.append(el("text", *name, x=x + 6, y=_n(place + 4), cls=f"name {look}"))
    return parts


def _scale(
    low: float, high: float, start: float, end: float, log: bool
) -> Callable[[float], float]:
    if log:
        low, high = math.log(low), math.log(high)
    span = (high - low) or 1.0
    return lambda value: start + (end - start) * ((math.log(value) if log else value) - low) / span


def _ticks(low: float, high: float, number: int) -> list[float]:
    """Round numbers that cover a range."""
    span = (high - low) or abs(high) or 1.0
    rough = span / number
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, max(last, first + 1) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers within and around a range, few enough to be read."""
    for steps in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 5), (1,)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [s * 10.0**p for p in powers for s in steps]
        below = max((t for t in ticks if t <= low), default=ticks[0])
        above = min((t for t in ticks if t >= high), default=ticks[-1])
        ticks = [t for t in ticks if below <= t <= above]
        if len(ticks) <= 7:
            break
    return ticks


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
