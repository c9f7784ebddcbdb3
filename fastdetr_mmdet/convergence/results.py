"""What the runs have measured: a curve per run, a summary per config, targets reached."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..engine.hooks.training_progress import read_progress
from .run import Run

METRIC = "coco/bbox_mAP"


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
    """The validations of one run, in order; ``failed`` says why it has not all of them.

    ``trained`` of ``epochs`` epochs are done.
    """

    name: str
    seed: int
    parameters: int
    points: tuple[Point, ...]
    failed: str | None = None
    trained: int = 0
    epochs: int = 0

    def reach(self, target: float) -> Point | None:
        """The first validation with at least that AP, or None."""
        return next((point for point in self.points if point.ap >= target), None)


@dataclass(frozen=True)
class Reached:
    """How soon a config's runs have a target AP: means over the runs that reach it.

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
    """One config over its seeds.

    ``mean``, ``low`` and ``high`` hold AP per validated epoch of ``epochs``, over all seeds that
    have got there; minutes per epoch are means over seeds and epochs, without validation.
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
    reached: tuple[Reached, ...] = field(default=())
    planned: int = 0


def read_curve(run: Run, failed: str | None = None) -> Curve:
    """The curve of a run, as far as it has come and no further than its epochs."""
    progress = read_progress(run.work_dir)
    points, minutes, cpu_minutes, trained = [], 0.0, 0.0, 0
    for entry in progress["epochs"]:
        if entry["epoch"] > run.epochs:
            break
        trained = entry["epoch"]
        minutes += entry.get("train_seconds", 0.0) / 60
        cpu_minutes += entry.get("train_cpu_seconds", 0.0) / 60
        if METRIC in entry.get("metrics", {}):
            metrics = entry["metrics"]
            # COCO says -1 where there is nothing to find
            ap, ap50 = (max(metrics[key], 0.0) for key in (METRIC, f"{METRIC}_50"))
            points.append(Point(entry["epoch"], ap, ap50, minutes, cpu_minutes))
    parameters = progress["parameters"]
    return Curve(run.name, run.seed, parameters, tuple(points), failed, trained, run.epochs)


def last_ap(run: Run) -> float:
    """AP of the last validation; NaN if there is none."""
    points = read_curve(run).points
    return points[-1].ap if points else float("nan")


def summarise(curves: Sequence[Curve], targets: Iterable[float] | None = None) -> list[Summary]:
    """One summary per config, in the order of the curves.

    Args:
        curves: Of all configs and seeds; those without a point are left out.
        targets: AP to reach; None: ``default_targets``.
    """
    by_name: dict[str, list[Curve]] = {}
    for curve in curves:
        if curve.points:
            by_name.setdefault(curve.name, []).append(curve)
    chosen = default_targets(by_name) if targets is None else list(targets)
    return [_summary(name, group, chosen) for name, group in by_name.items()]


def default_targets(by_name: dict[str, list[Curve]]) -> list[float]:
    """Half of the best AP that any config's mean has, and what the first config's mean has at best.

    The first config is meant to be the baseline.
    """
    best = [max(_statistics(group)[1], default=0.0) for group in by_name.values()]
    chosen = {round(max(best) / 2, 3), round(best[0], 3)} if best else set()
    return sorted(chosen - {0.0})  # which everybody has before the first step


def _summary(name: str, curves: list[Curve], targets: list[float]) -> Summary:
    epochs, mean, low, high = _statistics(curves)
    last = [curve.points[-1] for curve in curves]
    return Summary(
        name,
        curves[0].parameters,
        tuple(curve.seed for curve in curves),
        epochs,
        mean,
        low,
        high,
        minutes_per_epoch=statistics.fmean(point.minutes / point.epoch for point in last),
        cpu_minutes_per_epoch=statistics.fmean(point.cpu_minutes / point.epoch for point in last),
        reached=tuple(_reached(curves, target) for target in targets),
        planned=max(curve.epochs for curve in curves),
    )


def _statistics(
    curves: list[Curve],
) -> tuple[tuple[int, ...], tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Epochs that all seeds have validated, with mean, lowest and highest AP over the seeds."""
    per_seed = [{point.epoch: point.ap for point in curve.points} for curve in curves]
    epochs = tuple(epoch for epoch in per_seed[0] if all(epoch in seed for seed in per_seed))
    values = [[seed[epoch] for seed in per_seed] for epoch in epochs]
    return (
        epochs,
        tuple(map(statistics.fmean, values)),
        tuple(map(min, values)),
        tuple(map(max, values)),
    )


def _reached(curves: list[Curve], target: float) -> Reached:
    points = [point for curve in curves if (point := curve.reach(target))]
    if not points:
        return Reached(target, 0, len(curves))
    return Reached(
        target,
        len(points),
        len(curves),
        statistics.fmean(point.epoch for point in points),
        statistics.fmean(point.minutes for point in points),
        statistics.fmean(point.cpu_minutes for point in points),
    )


def rounded(value: Any) -> Any:
    """Numbers of a JSON tree to four digits after the point, so that files stay small."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(inner) for inner in value]
    return value
