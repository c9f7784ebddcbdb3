"""Build the page: the values of its templates, in the order of the sections."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from markupsafe import Markup

from ..evaluation.coco_table import COLUMNS, METRICS, Curve
from ..evaluation.error_types import EXPLANATIONS, Kind
from ..utils.config import flatten
from ..utils.plotting import COLOURS, Chart, Line, chart_svg, printable
from ..utils.run_history import RunHistory
from ..version import __version__
from .runs import Run
from .samples import ERRORS, find_errors, make_samples, score_hint
from .settings import Settings

SECTIONS = {
    "runs": "Runs",
    "curves": "How they learned",
    "coco": "COCO figures",
    "config": "What differs in the configs",
    "samples": "Boxes beside ground truth",
    "errors": "Errors",
    "attention": "Where the detectors looked",
}
MAIN_METRIC = "coco/bbox_mAP"
# Curves: logged name -> label.
_CURVES = {MAIN_METRIC: "AP", "coco/bbox_mAP_50": "AP50"}
_LOSSES = {
    "loss_cls": "Class loss, last layer",
    "loss_bbox": "L1 loss of boxes, last layer",
    "loss_iou": "IoU loss of boxes, last layer",
}
_LONGEST = 160  # characters of a config's value
# The run's folder, and templates, whose results are compared.
_IGNORED = ("work_dir", "derived_keys")

Captioned = tuple[str, Markup]


def make_page(runs: Sequence[Run], written: datetime, settings: Settings) -> str:
    """Render the report as a self-contained HTML file."""
    min_score = settings.min_score
    evaluated = [run for run in runs if run.evaluation is not None]
    datasets: dict[str, list[Run]] = {}
    for run in evaluated:
        datasets.setdefault(run.evaluated.dataset, []).append(run)
    left_out = {"config"} if len(runs) < 2 else set()
    if not settings.predictions:
        left_out |= {"samples", "errors", "attention"}
    errors = [find_errors(run, settings.examples, min_score) for run in evaluated]
    return _environment().get_template("page.html").render(
        sections={key: title for key, title in SECTIONS.items() if key not in left_out},
        runs=runs,
        written=written,
        version=__version__,
        predictions=settings.predictions,
        min_score=min_score,
        evaluated=evaluated,
        charts=list(_learning_curves(runs)),
        columns=COLUMNS,
        metric_names={f"coco/bbox_{key}": n for key, n in zip(METRICS, COLUMNS, strict=True)},
        objects=_objects(evaluated),
        score_charts={run.number: _score_charts(run) for run in evaluated},
        configured=[run for run in runs if run.config is not None],
        differences=config_differences([run.config for run in runs if run.config is not None]),
        datasets={
            name: (own, list(make_samples(own, settings.images, min_score)))
            for name, own in datasets.items()
        },
        hints=[hint for run in evaluated if (hint := score_hint(run, min_score))],
        errors=errors,
        most_errors=max((found.total for found in errors), default=0) or 1,
        kinds=list(Kind),
        error_kinds=ERRORS,
        explanations=EXPLANATIONS,
    )  # fmt: skip


def config_differences(configs: Sequence[Mapping[str, Any]]) -> list[tuple[list[str], list[str]]]:
    """List the keys in which configs differ.

    Returns:
        (keys, values): one value per config, a dash if the key is missing. Keys with the same
        ending and values, such as a variable and its copies, share an entry.
    """
    flats = [
        flatten({key: value for key, value in config.items() if key not in _IGNORED})
        for config in configs
    ]
    rows: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for key in dict.fromkeys(key for flat in flats for key in flat):
        values = tuple(flat.get(key, "—") for flat in flats)
        if len(set(values)) > 1:
            rows.setdefault((key.rpartition(".")[2], values), []).append(key)
    return [(names, list(map(_cut, values))) for (_, values), names in rows.items()]


def _cut(value: str) -> str:
    return value if len(value) <= _LONGEST else value[: _LONGEST - 1] + "…"


def _environment() -> jinja2.Environment:
    """Text is escaped; undefined names in templates are errors."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fastdetr_mmdet.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= dict(
        figure=_figure, duration=_duration, count=_count, headline=_headline,
        best=lambda curve: max(curve, key=lambda point: point.value),
    )  # fmt: skip
    environment.globals["colours"] = len(COLOURS)
    return environment


def _finalize(value: Any) -> Any:
    return value if isinstance(value, Markup) else printable(str(value))


def _figure(value: float | None) -> str:
    return "—" if value is None else f"{value:.3f}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _duration(minutes: float) -> str:
    if minutes < 1.5:
        return f"{minutes * 60:.0f} s"
    return f"{minutes:.1f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _headline(run: Run) -> tuple[str, str]:
    """AP of a run, measured now or last logged, and a label that tells which."""
    evaluation = run.evaluation
    if evaluation is not None and evaluation.table is not None:
        part = len(evaluation.images) < evaluation.of_images
        which = f"first {len(evaluation.images)} images" if part else "measured now"
        return _figure(evaluation.table.overall["AP"]), f"AP, {which}"
    if evaluation is not None and evaluation.metrics:
        name, value = next(iter(evaluation.metrics.items()))
        return _figure(value), name
    logged = _main_metric(run.history)
    if logged is None:
        return "—", "no AP"
    last = run.history.metrics[logged][-1]
    at = f"{run.history.unit} {last.progress:.4g}"
    return _figure(last.value), f"{_CURVES.get(logged, logged)}, as logged at {at}"


def _main_metric(history: RunHistory) -> str | None:
    """COCO's AP if logged, else the first logged metric."""
    return MAIN_METRIC if MAIN_METRIC in history.metrics else next(iter(history.metrics), None)


def _objects(evaluated: Sequence[Run]) -> dict[str, int]:
    """Number of objects of each class of all runs' tables."""
    objects: dict[str, int] = {}
    for table in (run.evaluated.table for run in evaluated):
        if table is not None:
            objects = objects | table.objects | objects
    return objects


def _learning_curves(runs: Sequence[Run]) -> Iterator[tuple[list[Captioned], list[Captioned]]]:
    """Charts of AP and loss, and of loss terms, for runs by epoch and by iteration."""
    ids = (f"chart{number}" for number in itertools.count())
    for unit in ("epoch", "iteration"):
        own = [run for run in runs if run.history.unit == unit and run.history.progress]
        losses = {name for run in own for name in run.history.losses}
        logged = {name for run in own for name in run.history.metrics}
        curves = {name: label for name, label in _CURVES.items() if name in logged}
        if MAIN_METRIC not in logged:
            others = filter(None, (_main_metric(run.history) for run in own))
            curves = {name: name for name in itertools.islice(others, 1)}
        draw = functools.partial(_chart, own, ids)
        main = [
            draw("metrics", name, label, by_time, y_range=(0, None))
            for name, label in curves.items()
            for by_time in (False, True)
        ]
        for by_time in (False, True) if losses else ():
            label = "Training loss of all layers, log scale"
            main.append(draw("losses", "loss", label, by_time, log_y=True))
        if main:
            yield main, [draw("losses", n, label) for n, label in _LOSSES.items() if n in losses]


def _score_charts(run: Run) -> list[Captioned]:
    """Charts of precision by recall and F1 by score threshold: all classes, frequent classes."""
    table = run.evaluated.table
    if table is None or table.pooled is None:
        return []
    classes = sorted(table.curves, key=lambda name: -table.objects[name])[: len(COLOURS) - 1]
    curves: dict[str, Curve] = {"all": table.pooled}
    curves |= {name: table.curves[name] for name in classes} if len(table.curves) > 1 else {}
    charts = {
        "Precision by recall": ("recall", [(c.recall, c.precision) for c in curves.values()]),
        "F1 by least score": ("score", [(c.scores[::-1], c.f1[::-1]) for c in curves.values()]),
    }
    drawn = []
    for number, (caption, (label, points)) in enumerate(charts.items()):
        lines = [
            Line(name, look, x.tolist(), y.tolist())
            for look, (name, (x, y)) in enumerate(zip(curves, points, strict=True))
        ]
        chart = Chart(lines, label, y_range=(0, 1.02))
        drawn.append((caption, Markup(chart_svg(chart, f"scores{run.number}-{number}"))))
    return drawn


def _chart(
    runs: Sequence[Run], ids: Iterator[str], kind: str, name: str, label: str,
    by_time: bool = False, **options: Any,
) -> Captioned:  # fmt: skip
    """Chart with caption of a logged value of all runs."""
    lines = [
        Line.of(run.name, run.number, curve, by_time)
        for run in runs
        if (curve := getattr(run.history, kind).get(name))
    ]
    unit = runs[0].history.unit
    x, by = ("minutes", "time") if by_time else (unit, f"{unit}s")
    return f"{label}, by {by}", Markup(chart_svg(Chart(lines, x, **options), next(ids)))
