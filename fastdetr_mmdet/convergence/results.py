"""What the runs have measured: a curve per run, a summary per config, targets reached."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from ..utils.run_history import RunHistory
from .runs import METRIC, Run


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
    reached: tuple[Reached, ...] = ()
    planned: int = 0


def read_curve(run: Run, failed: str | None = None) -> Curve:
    """The curve of a run, as far as it has come and no further than its epochs."""
    history = RunHistory.read(run.work_dir)
    epochs = [epoch for epoch in history.epochs if epoch.number <= run.epochs]
    points = tuple(
        Point(
            epoch.number,
            max(epoch.metrics[METRIC], 0.0),  # COCO says -1 where there is nothing to find
            max(epoch.metrics.get(f"{METRIC}_50", 0.0), 0.0),
            epoch.minutes,
            epoch.cpu_minutes,
        )
        for epoch in epochs
        if METRIC in epoch.metrics
    )
    trained = epochs[-1].number if epochs else 0
    return Curve(
        run.name, run.seed, history.parameters, points, failed, trained, run.epochs, history.device
    )


def summarise(curves: Sequence[Curve], targets: Iterable[float] | None = None) -> list[Summary]:
    """One summary per config, in the order of the curves.

    Args:
        curves: Of all configs and seeds; those without a point are left out.
        targets: AP to reach; None: half of the best AP that any config's mean has, and the best
            mean of the first config, which is meant to be the baseline.
    """
    by_name: dict[str, list[Curve]] = {}
    for curve in curves:
        if curve.points:
            by_name.setdefault(curve.name, []).append(curve)
    if targets is None:
        best = [max(_statistics(group)[1], default=0.0) for group in by_name.values()]
        chosen = {round(max(best) / 2, 3), round(best[0], 3)} if best else set()
        targets = sorted(chosen - {0.0})  # which everybody has before the first step
    targets = tuple(targets)
    return [_summary(name, group, targets) for name, group in by_name.items()]


def _summary(name: str, curves: list[Curve], targets: Sequence[float]) -> Summary:
    last = [curve.points[-1] for curve in curves]
    return Summary(
        name,
        curves[0].parameters,
        tuple(curve.seed for curve in curves),
        *_statistics(curves),
        minutes_per_epoch=fmean(point.minutes / point.epoch for point in last),
        cpu_minutes_per_epoch=fmean(point.cpu_minutes / point.epoch for point in last),
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
    return epochs, tuple(map(fmean, values)), tuple(map(min, values)), tuple(map(max, values))


def _reached(curves: list[Curve], target: float) -> Reached:
    first = [next((p for p in curve.points if p.ap >= target), None) for curve in curves]
    points = [point for point in first if point is not None]
    if not points:
        return Reached(target, 0, len(curves))
    return Reached(
        target,
        len(points),
        len(curves),
        fmean(point.epoch for point in points),
        fmean(point.minutes for point in points),
        fmean(point.cpu_minutes for point in points),
    )
