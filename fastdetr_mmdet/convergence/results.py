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


def read_curve(run: Run, failed: str | None = None) -> Curve:
    """Read the curve of a run, up to its planned epochs."""
    history = RunHistory.read(run.work_dir)
    epochs = [epoch for epoch in history.epochs if epoch.number <= run.epochs]
    points = []
    for epoch in epochs:
        if METRIC in epoch.metrics:
            # COCO's AP is -1 without objects
            ap, ap50 = (max(epoch.metrics.get(key, 0.0), 0.0) for key in (METRIC, f"{METRIC}_50"))
            points.append(Point(epoch.number, ap, ap50, epoch.minutes, epoch.cpu_minutes))
    about, trained = (run.name, run.seed, history.parameters), epochs[-1].number if epochs else 0
    return Curve(*about, tuple(points), failed, trained, run.epochs, history.device)


def read_reference(path: Path) -> dict[str, Any]:
    """Read ``{"title": ..., "source": ..., "series": {name: [[epoch, AP], ...]}}``.

    Raises:
        UsageError: if the file does not exist or has another form, or an AP is not in [0, 1].
    """
    try:
        data = json.loads(path.read_text())
        series = {
            str(name): [(float(epoch), float(ap)) for epoch, ap in pairs]
            for name, pairs in data["series"].items()
        }
        reference = dict(title=str(data["title"]), source=str(data["source"]), series=series)
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
    groups = _by_name(curve for curve in curves if curve.points)
    if targets is None:
        best = [max(map(fmean, _by_epoch(g, "ap").values()), default=0.0) for g in groups.values()]
        chosen = {round(max(best) / 2, 3), round(best[0], 3)} if best else set()
        targets = sorted(chosen - {0.0})  # an AP of 0 is always reached
    targets = list(targets)
    return [_summary(name, group, targets) for name, group in groups.items()]


def _summary(name: str, curves: list[Curve], targets: list[float]) -> Summary:
    aps, ends = _by_epoch(curves, "ap"), [curve.points[-1] for curve in curves]
    return Summary(
        name,
        curves[0].parameters,
        tuple(curve.seed for curve in curves),
        tuple(aps),
        tuple(map(fmean, aps.values())),
        tuple(map(min, aps.values())),
        tuple(map(max, aps.values())),
        minutes_per_epoch=fmean(end.minutes / end.epoch for end in ends),
        cpu_minutes_per_epoch=fmean(end.cpu_minutes / end.epoch for end in ends),
        reached=tuple(_reached(curves, target) for target in targets),
        planned=max(curve.epochs for curve in curves),
    )


def _by_name(curves: Iterable[Curve]) -> dict[str, list[Curve]]:
    groups: dict[str, list[Curve]] = {}
    for curve in curves:
        groups.setdefault(curve.name, []).append(curve)
    return groups


def _by_epoch(curves: list[Curve], key: str) -> dict[int, list[float]]:
    """Values of a field of ``Point`` with each seed, at epochs that all seeds have validated."""
    own = [{point.epoch: getattr(point, key) for point in curve.points} for curve in curves]
    common = [epoch for epoch in own[0] if all(epoch in seed for seed in own)]
    return {epoch: [seed[epoch] for seed in own] for epoch in common}


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
    references: Sequence[dict[str, Any]] = (),
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
        "references": references,
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
    summaries: Sequence[Summary], curves: Sequence[Curve], references: Sequence[dict[str, Any]] = ()
) -> Iterator[Chart]:
    """Charts of AP over epochs and over time, and one chart per reference.

    Time is CPU time, which other programs do not change, unless a run trained on another device.
    """
    groups = _by_name(curve for curve in curves if curve.points)
    seeds, on_cpu = len({c.seed for c in curves}), {c.device for c in curves if c.points} <= {"cpu"}
    top = _HEADROOM * max((ap for summary in summaries for ap in summary.high), default=0.0)
    targets = [reached.target for reached in summaries[0].reached] if summaries else []
    levels = {f"target {target:.3f}": target for target in targets}
    label = "CPU minutes of training" if on_cpu else "minutes of training (wall-clock)"
    what = f"mean and range over {seeds} seeds" if seeds > 1 else "one seed"
    for x_label, key, title in (
        ("epoch", "epoch", what),
        (label, "cpu_minutes" if on_cpu else "minutes", "the same, by computing time"),
    ):
        lines = []
        for look, own in enumerate(summaries):
            x = [fmean(values) for values in _by_epoch(groups[own.name], key).values()]
            lines.append(Line(own.name, look, x, own.mean, (own.low, own.high)))
        yield Chart(lines, x_label, "COCO AP", title, (0, top or None), levels=levels)
    for reference in references:
        # few pairs are not connected, since values between them are unknown; other colours than
        # configs
        lines = [
            Line(name, look, [x for x, _ in pairs], [y for _, y in pairs], connected=len(pairs) > 3)
            for look, (name, pairs) in enumerate(reference["series"].items(), len(summaries))
        ]
        title = f"for reference: {reference['title']}"
        yield Chart(lines, "epoch", "COCO AP", title, (0, None), note=reference["source"])


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
        if not states:
            continue
        summary, extent = summary_of.get(name), "no figures yet, since no epoch is validated"
        if summary is not None:
            extent = "no mean, since no epoch is validated with every seed"
            if summary.epochs:
                extent = f"figures up to epoch {summary.epochs[-1]}"
            if len(summary.seeds) < len(runs):
                extent += f", only of seed {', '.join(map(str, summary.seeds))}"
        notes.append(f"{name}: {', '.join(states)}; {extent}")
    if summaries and not summaries[0].reached:
        notes.append("No config has a mean AP of 0.001 yet, so there is no target: give --target")
    return notes
