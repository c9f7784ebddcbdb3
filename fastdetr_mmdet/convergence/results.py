"""Write the results of runs as table, picture, JSON and CSV."""

from __future__ import annotations

import csv
import json
import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ..utils.cli import UsageError
from ..utils.environment import versions
from ..utils.plotting import Chart, Line, save_charts
from ..utils.run_history import RunHistory
from .runs import METRIC, Run

_HEADROOM = 1.2  # upper end of the charts, relative to the best AP


@dataclass(frozen=True)
class Point:
    """A validation: the epoch (from 1), AP in [0, 1], and minutes of training until then."""

    epoch: int
    ap: float
    ap50: float
    minutes: float
    cpu_minutes: float


@dataclass(frozen=True)
class Curve:
    """Validations of one run, in order; ``failed`` is the reason if it stopped early.

    ``trained`` of ``epochs`` epochs are done, on a device of this type.
    """

    name: str
    seed: int
    parameters: int
    points: tuple[Point, ...]
    failed: str | None = None
    trained: int = 0
    epochs: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class Reached:
    """Time to a target AP, averaged over the runs that reach it.

    ``runs`` of ``of`` runs reach it; the means are None if none does.
    """

    target: float
    runs: int
    of: int
    epochs: float | None = None
    minutes: float | None = None
    cpu_minutes: float | None = None


@dataclass(frozen=True)
class Summary:
    """Results of one config over its seeds.

    ``mean``, ``low`` and ``high`` are AP over all seeds for each epoch of ``epochs``; minutes per
    epoch are means over seeds and epochs, without validation.
    """

    name: str
    parameters: int
    seeds: tuple[int, ...]
    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    minutes_per_epoch: float
    cpu_minutes_per_epoch: float
    reached: tuple[Reached, ...] = ()
    planned: int = 0


@dataclass(frozen=True)
class Reference:
    """Published curves; drawn in a separate chart, because their data differ.

    ``series`` maps a name to (epoch, AP in [0, 1]) pairs; up to three pairs are drawn as marks.
    """

    title: str
    source: str
    series: dict[str, tuple[tuple[float, float], ...]]


def read_curve(run: Run, failed: str | None = None) -> Curve:
    """Read the curve of a run, up to its planned epochs."""
    history = RunHistory.read(run.work_dir)
    epochs = [epoch for epoch in history.epochs if epoch.number <= run.epochs]
    points = tuple(
        Point(
            epoch.number,
            max(epoch.metrics[METRIC], 0.0),  # COCO's AP is -1 without objects
            max(epoch.metrics.get(f"{METRIC}_50", 0.0), 0.0),
            epoch.minutes,
            epoch.cpu_minutes,
        )
        for epoch in epochs
        if METRIC in epoch.metrics
    )
    trained, parameters = epochs[-1].number if epochs else 0, history.parameters
    return Curve(
        run.name, run.seed, parameters, points, failed, trained, run.epochs, history.device
    )


def read_reference(path: Path) -> Reference:
    """Read ``{"title": ..., "source": ..., "series": {name: [[epoch, AP], ...]}}``.

    Raises:
        UsageError: if the file does not exist or has another form, or an AP is not in [0, 1].
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
    for name, pairs in series.items():
        for ap in (ap for _, ap in pairs if not 0 <= ap <= 1):
            raise UsageError(f"{path}: {name} has AP {ap:g}. Give AP from 0 to 1, not in per cent.")
    return reference


def summarise(curves: Sequence[Curve], targets: Iterable[float] | None = None) -> list[Summary]:
    """One summary per config, in the order of the curves.

    Args:
        curves: Curves of all configs and seeds; curves without points are ignored.
        targets: AP to reach; None: half of the best mean AP of all configs, and the best mean AP of
            the first config, the baseline.
    """
    by_name = _by_name([curve for curve in curves if curve.points])
    if targets is None:
        best = [max(_statistics(group)[1], default=0.0) for group in by_name.values()]
        chosen = {round(max(best) / 2, 3), round(best[0], 3)} if best else set()
        targets = sorted(chosen - {0.0})  # an AP of 0 is always reached
    targets = tuple(targets)
    return [
        Summary(
            name,
            group[0].parameters,
            tuple(curve.seed for curve in group),
            *_statistics(group),
            minutes_per_epoch=fmean(c.points[-1].minutes / c.points[-1].epoch for c in group),
            cpu_minutes_per_epoch=fmean(
                c.points[-1].cpu_minutes / c.points[-1].epoch for c in group
            ),
            reached=tuple(_reached(group, target) for target in targets),
            planned=max(curve.epochs for curve in group),
        )
        for name, group in by_name.items()
    ]


def _by_name(curves: Iterable[Curve]) -> dict[str, list[Curve]]:
    groups: dict[str, list[Curve]] = {}
    for curve in curves:
        groups.setdefault(curve.name, []).append(curve)
    return groups


def _statistics(
    curves: list[Curve],
) -> tuple[tuple[int, ...], tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Epochs with validations of all seeds, and mean, lowest and highest AP over the seeds."""
    per_seed = [{point.epoch: point.ap for point in curve.points} for curve in curves]
    epochs = tuple(epoch for epoch in per_seed[0] if all(epoch in seed for seed in per_seed))
    values = [[seed[epoch] for seed in per_seed] for epoch in epochs]
    return epochs, tuple(map(fmean, values)), tuple(map(min, values)), tuple(map(max, values))


def _reached(curves: list[Curve], target: float) -> Reached:
    first = [next((p for p in curve.points if p.ap >= target), None) for curve in curves]
    points = [point for point in first if point is not None]
    if not points:
        return Reached(target, 0, len(curves))
    means = [fmean(getattr(p, key) for p in points) for key in ("epoch", "minutes", "cpu_minutes")]
    return Reached(target, len(points), len(curves), *means)


def write_results(
    out: Path,
    curves: Sequence[Curve],
    budget: dict[str, Any],
    targets: Sequence[float] | None = None,
    references: Sequence[Reference] = (),
    notes: Sequence[str] = (),
) -> list[Path]:
    """Write ``convergence.json``, ``.md``, ``.png`` and ``curves.csv``; return their paths.

    Notes are added below the table and in the JSON, after notes on unfinished and failed runs.
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
    paths[2].write_text(json.dumps(_rounded(data), indent=1) + "\n")
    with paths[3].open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["config", "seed", "epoch", "ap", "ap50", "minutes", "cpu_minutes"])
        for curve in curves:
            for point in curve.points:
                writer.writerow([curve.name, curve.seed, *_rounded(astuple(point))])
    return paths


def _rounded(data: Any) -> Any:
    """Round a JSON tree to four decimals, to keep files small."""
    return json.loads(json.dumps(data), parse_float=lambda text: round(float(text), 4))


def charts(
    summaries: Sequence[Summary], curves: Sequence[Curve], references: Sequence[Reference] = ()
) -> Iterator[Chart]:
    """Charts of AP over epochs and over time, and one chart per reference.

    Time is CPU time, which other programs do not change, unless a run trained on another device.
    """
    seeds, on_cpu = len({c.seed for c in curves}), {c.device for c in curves if c.points} <= {"cpu"}
    top = _HEADROOM * max((ap for summary in summaries for ap in summary.high), default=0.0)
    title = f"mean and range over {seeds} seeds" if seeds > 1 else "one seed"
    common: dict[str, Any] = dict(y_label="COCO AP", y_range=(0, top or None))
    targets = [reached.target for reached in summaries[0].reached] if summaries else []
    common["levels"] = {f"target {target:.3f}": target for target in targets}
    lines = [_line(n, own, own.epochs) for n, own in enumerate(summaries)]
    yield Chart(lines, "epoch", title=title, **common)
    by_name = _by_name([curve for curve in curves if curve.points])
    minutes = [_minutes(by_name[own.name], own.epochs, on_cpu) for own in summaries]
    lines = [_line(n, own, minutes[n]) for n, own in enumerate(summaries)]
    label = "CPU minutes of training" if on_cpu else "minutes of training (wall-clock)"
    yield Chart(lines, label, title="the same, by computing time", **common)
    for reference in references:
        # few pairs are not connected, since values between them are unknown; other colours than
        # configs
        lines = [
            Line(name, look, [x for x, _ in pairs], [y for _, y in pairs], connected=len(pairs) > 3)
            for look, (name, pairs) in enumerate(reference.series.items(), len(summaries))
        ]
        title = f"for reference: {reference.title}"
        yield Chart(lines, "epoch", "COCO AP", title, (0, None), note=reference.source)


def _line(look: int, summary: Summary, x: Sequence[float]) -> Line:
    return Line(summary.name, look, x, summary.mean, (summary.low, summary.high))


def _minutes(curves: Sequence[Curve], epochs: Sequence[int], on_cpu: bool) -> list[float]:
    """Minutes until each epoch, mean over the seeds."""
    key = "cpu_minutes" if on_cpu else "minutes"
    own = [{point.epoch: getattr(point, key) for point in curve.points} for curve in curves]
    return [fmean(minutes[epoch] for minutes in own) for epoch in epochs]


def markdown_table(summaries: Sequence[Summary]) -> str:
    """Table with one row per config; with several seeds, the range over seeds is in brackets."""
    head = ["config", "parameters", "AP at the end", "best mean AP"]
    targets = [reached.target for reached in summaries[0].reached] if summaries else []
    head += [f"to AP {target:.3f}: epochs / CPU min / min" for target in targets]
    head += ["CPU s per epoch", "s per epoch"]
    rows = [head, ["---"] * len(head)]
    end = max((summary.epochs[-1] for summary in summaries if summary.epochs), default=0)
    for own in summaries:
        last, best, trained = "none yet", "none yet", own.epochs[-1] if own.epochs else 0
        if own.mean:
            last, ap = f"{own.mean[-1]:.3f}", max(own.mean)
            best = f"{ap:.3f} (epoch {own.epochs[own.mean.index(ap)]})"
            if len(own.seeds) > 1:
                last += f" ({own.low[-1]:.3f} to {own.high[-1]:.3f})"
            if trained < max(end, own.planned):
                last += f", epoch {trained} only"
        row = [own.name, f"{own.parameters:,}", last, best]
        row += [_cell(reached, trained >= own.planned and trained > 0) for reached in own.reached]
        seconds = (60 * own.cpu_minutes_per_epoch, 60 * own.minutes_per_epoch)
        rows.append([*row, *(f"{value:.1f}" for value in seconds)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(reached: Reached, ended: bool) -> str:
    if reached.epochs is None:
        return "not reached" if ended else "not reached yet"
    cell = f"{reached.epochs:g} / {reached.cpu_minutes:.1f} / {reached.minutes:.1f}"
    if reached.runs < reached.of:
        cell += f" (only {reached.runs} of {reached.of} seeds)"
    return cell


def notes_on(curves: Sequence[Curve], summaries: Sequence[Summary]) -> list[str]:
    """Notes on unfinished and failed runs and on targets, in the order of the configs."""
    notes = []
    summary_of = {summary.name: summary for summary in summaries}
    for name, runs in _by_name(curves).items():
        states = [
            f"seed {curve.seed} has {curve.trained} of {curve.epochs} epochs"
            + (" and failed" if curve.failed else "")
            for curve in runs
            if curve.failed or curve.trained < curve.epochs
        ]
        summary, extent = summary_of.get(name), "no figures yet, since no epoch is validated"
        if summary is not None:
            extent = "no mean, since no epoch is validated with every seed"
            if summary.epochs:
                extent = f"figures up to epoch {summary.epochs[-1]}"
            if len(summary.seeds) < len(runs):
                extent += f", only of seed {', '.join(map(str, summary.seeds))}"
        if states:
            notes.append(f"{name}: {', '.join(states)}; {extent}")
    if summaries and not summaries[0].reached:
        notes.append("No config has a mean AP of 0.001 yet, so there is no target: give --target")
    return notes
