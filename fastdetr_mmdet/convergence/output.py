"""Write the results of a comparison: table, picture, JSON and CSV."""

from __future__ import annotations

import csv
import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ..utils.cli import UsageError
from ..utils.environment import versions
from ..utils.plotting import Chart, Line, save_charts
from .results import Curve, Reached, Summary, summarise

_HEADROOM = 1.2  # times the best AP, as far up as the curves' charts go


@dataclass(frozen=True)
class Reference:
    """Published curves, in a chart of their own because they are of other data.

    ``series`` maps a name to (epoch, AP in [0, 1]) pairs; a few pairs are drawn as marks.
    """

    title: str
    source: str
    series: dict[str, tuple[tuple[float, float], ...]]


def read_reference(path: Path) -> Reference:
    """Read ``{"title": ..., "source": ..., "series": {name: [[epoch, AP], ...]}}``.

    Raises:
        UsageError: if there is no such file, it is not of that form, or an AP is not in [0, 1].
    """
    try:
        data = json.loads(path.read_text())
        series = {
            str(name): tuple((float(epoch), float(ap)) for epoch, ap in pairs)
            for name, pairs in data["series"].items()
        }
        reference = Reference(str(data["title"]), str(data["source"]), series)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} is not a reference file ({type(error).__name__}: {error}). It must be "
            '{"title": ..., "source": ..., "series": {name: [[epoch, AP], ...]}}.'
        ) from error
    wrong = [(name, ap) for name, pairs in series.items() for _, ap in pairs if not 0 <= ap <= 1]
    for name, ap in wrong:
        raise UsageError(f"{path}: {name} has AP {ap:g}. Give AP from 0 to 1, not in per cent.")
    return reference


def write_results(
    out: Path,
    curves: Sequence[Curve],
    budget: dict[str, Any],
    targets: Sequence[float] | None = None,
    references: Sequence[Reference] = (),
    notes: Sequence[str] = (),
) -> list[Path]:
    """Write ``convergence.json``, ``.md``, ``.png`` and ``curves.csv``; return their paths.

    Notes stand below the table and in the JSON, after those on unfinished and failed runs.
    """
    summaries = summarise(curves, targets)
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"convergence.{kind}" for kind in ("md", "png", "json")] + [out / "curves.csv"]
    notes = [*notes_on(curves, summaries), *notes]
    below = "".join(f"- {note}.\n" for note in notes)
    paths[0].write_text(markdown_table(summaries) + (f"\n{below}" if below else ""))
    save_charts(list(charts(summaries, curves, references)), paths[1])
    data = {
        "budget": budget,
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "versions": versions(),
        "notes": notes,
        "summary": [asdict(summary) for summary in summaries],
        "runs": [asdict(curve) for curve in curves],
        "references": [asdict(reference) for reference in references],
    }
    paths[2].write_text(_compact(_rounded(data)))
    with paths[3].open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["config", "seed", "epoch", "ap", "ap50", "minutes", "cpu_minutes"])
        for curve in curves:
            for point in curve.points:
                writer.writerow([curve.name, curve.seed, *_rounded(list(asdict(point).values()))])
    return paths


def charts(
    summaries: Sequence[Summary], curves: Sequence[Curve], references: Sequence[Reference] = ()
) -> Iterator[Chart]:
    """AP against epochs and against time; each reference has a chart of its own.

    Time is that of the CPU, which other programs on the machine do not change, unless a run
    trained on another device.
    """
    seeds, on_cpu = len({c.seed for c in curves}), {c.device for c in curves if c.points} <= {"cpu"}
    top = _HEADROOM * max((ap for summary in summaries for ap in summary.high), default=0.0)
    title = f"mean and range over {seeds} seeds" if seeds > 1 else "one seed"
    common: dict[str, Any] = dict(y_label="COCO AP", y_range=(0, top or None))
    targets = [reached.target for reached in summaries[0].reached] if summaries else []
    common["levels"] = {f"target {target:.3f}": target for target in targets}
    lines = [_line(n, own, own.epochs) for n, own in enumerate(summaries)]
    yield Chart(lines, "epoch", title=title, **common)
    lines = [_line(n, own, _minutes(own, curves, on_cpu)) for n, own in enumerate(summaries)]
    label = "CPU minutes of training" if on_cpu else "minutes of training (wall-clock)"
    yield Chart(lines, label, title="the same, by computing time", **common)
    for reference in references:
        lines = []
        for name, pairs in reference.series.items():
            x, y = zip(*pairs, strict=True)
            few = len(pairs) < 4  # then it is not known what lies between them
            # later looks than those of the configs, which they are not
            look = len(summaries) + len(lines)
            lines.append(Line(name, look, x, y, connected=not few))
        title = f"for reference: {reference.title}"
        yield Chart(lines, "epoch", "COCO AP", title, (0, None), note=reference.source)


def _line(look: int, summary: Summary, x: Sequence[float]) -> Line:
    return Line(summary.name, look, x, summary.mean, (summary.low, summary.high))


def _minutes(summary: Summary, curves: Sequence[Curve], on_cpu: bool) -> list[float]:
    """Minutes until each epoch of a summary, mean over the seeds."""
    own = [
        {point.epoch: point.cpu_minutes if on_cpu else point.minutes for point in curve.points}
        for curve in curves
        if curve.name == summary.name and curve.points
    ]
    return [fmean(minutes[epoch] for minutes in own) for epoch in summary.epochs]


def markdown_table(summaries: Sequence[Summary]) -> str:
    """One row per config; spreads are lowest to highest over the seeds, if these are several."""
    head = ["config", "parameters", "AP at the end", "best mean AP"]
    targets = [reached.target for reached in summaries[0].reached] if summaries else []
    head += [f"to AP {target:.3f}: epochs / CPU min / min" for target in targets]
    head += ["CPU s per epoch", "s per epoch"]
    rows = [head, ["---"] * len(head)]
    end = max((summary.epochs[-1] for summary in summaries if summary.epochs), default=0)
    for summary in summaries:
        last, best = "none yet", "none yet"
        if summary.mean:
            last, ap = f"{summary.mean[-1]:.3f}", max(summary.mean)
            best = f"{ap:.3f} (epoch {summary.epochs[summary.mean.index(ap)]})"
            if len(summary.seeds) > 1:
                last += f" ({summary.low[-1]:.3f} to {summary.high[-1]:.3f})"
            if summary.epochs[-1] < max(end, summary.planned):
                last += f", epoch {summary.epochs[-1]} only"
        ended = bool(summary.epochs) and summary.epochs[-1] >= summary.planned
        row = [summary.name, f"{summary.parameters:,}", last, best]
        row += [_cell(reached, ended) for reached in summary.reached]
        row += [f"{minutes * 60:.1f}" for minutes in
                (summary.cpu_minutes_per_epoch, summary.minutes_per_epoch)]  # fmt: skip
        rows.append(row)
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(reached: Reached, ended: bool) -> str:
    if reached.epochs is None:
        return "not reached" if ended else "not reached yet"
    cell = f"{reached.epochs:g} / {reached.cpu_minutes:.1f} / {reached.minutes:.1f}"
    if reached.runs < reached.of:
        cell += f" (only {reached.runs} of {reached.of} seeds)"
    return cell


def notes_on(curves: Sequence[Curve], summaries: Sequence[Summary]) -> list[str]:
    """Sentences on unfinished and failed runs and on targets, in the order of the configs."""
    notes = []
    by_name = {summary.name: summary for summary in summaries}
    for name in dict.fromkeys(curve.name for curve in curves):
        runs = [curve for curve in curves if curve.name == name]
        states = [
            f"seed {curve.seed} has {curve.trained} of {curve.epochs} epochs"
            + (" and failed" if curve.failed else "")
            for curve in runs
            if curve.failed or curve.trained < curve.epochs
        ]
        summary = by_name.get(name)
        if summary is None:
            extent = "no figures yet, since none is validated"
        elif not summary.epochs:
            extent = "no mean, since no epoch is validated with every seed"
        else:
            extent = f"figures up to epoch {summary.epochs[-1]}"
        if summary is not None and len(summary.seeds) < len(runs):
            extent += f", only of seed {', '.join(map(str, summary.seeds))}"
        if states:
            notes.append(f"{name}: {', '.join(states)}; {extent}")
    if summaries and not summaries[0].reached:
        notes.append("No config has a mean AP of 0.001 yet, so there is no target: give --target")
    return notes


def _rounded(data: Any) -> Any:
    """A JSON tree with four digits after the point, to keep files small."""
    return json.loads(json.dumps(data), parse_float=lambda text: round(float(text), 4))


def _compact(data: dict[str, Any]) -> str:
    """JSON with one line per run, summary and so on: small, and readable in a diff."""
    parts = []
    for key, value in data.items():
        text = json.dumps(value)
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(f"  {json.dumps(item)}" for item in value) + "\n ]"
        parts.append(f"{json.dumps(key)}: {text}")
    return "{\n " + ",\n ".join(parts) + "\n}\n"
