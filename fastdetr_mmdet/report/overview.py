"""The first sections of a page: the runs at a glance, and how they learned."""

from __future__ import annotations

from collections.abc import Sequence

from ..evaluation.coco_table import COLUMNS
from ..evaluation.coco_table import METRICS as LOGGED
from .chart import Line, line_chart, look_of
from .history import History
from .markup import Html, el, figure, join, table
from .run import Run

MAIN_METRIC = "coco/bbox_mAP"
# Curves of their own: logged name -> what it is called
METRICS = {MAIN_METRIC: "AP", "coco/bbox_mAP_50": "AP50"}
NAMES = {f"coco/bbox_{ours}": name for ours, name in zip(LOGGED, COLUMNS, strict=True)}
PARTS = {
    "loss_cls": "Class loss, last layer",
    "loss_bbox": "L1 loss of boxes, last layer",
    "loss_iou": "IoU loss of boxes, last layer",
}


def overview(runs: Sequence[Run]) -> Html:
    """A card per run: its figures, and what is missing for it."""
    return el("div", [_card(index, run) for index, run in enumerate(runs)], cls="cards")


def learning_curves(runs: Sequence[Run]) -> Html:
    """AP and losses of all runs, against epochs and against time."""
    parts = []
    for unit in ("epoch", "iteration"):
        counted = [(n, run) for n, run in enumerate(runs) if run.history.unit == unit]
        if any(run.history.losses or run.history.metrics for _, run in counted):
            parts.append(_charts(counted, unit))
    if not parts:
        return el("p", "None of the runs has logged anything that could be drawn.", cls="empty")
    several = any(run.history.sessions > 1 for run in runs)
    note = (
        "Minutes are wall-clock time of the training with its validations, as the logs tell it. "
        "Pauses between sessions, and work that was lost in a kill and done again, are not counted."
    )
    if several:
        resumed = ", ".join(run.name for run in runs if run.history.sessions > 1)
        note += f" Joined from several sessions: {resumed}."
    return join([parts, el("p", note, cls="note")])


def main_metric(history: History) -> str | None:
    """COCO's AP where it was logged, else the first metric that was."""
    names = list(history.metrics)
    return MAIN_METRIC if MAIN_METRIC in names else next(iter(names), None)


def _charts(runs: list[tuple[int, Run]], unit: str) -> Html:
    def draw(kind: str, name: str, label: str, by_time: bool = False, **options: bool) -> Html:
        lines = [
            Line(run.name, n, [(p.minutes if by_time else p.progress, p.value) for p in curve])
            for n, run in runs
            if (curve := getattr(run.history, kind).get(name))
        ]
        x, by = ("minutes", "time") if by_time else (f"{unit}s", f"{unit}s")
        return line_chart(lines, x, f"{label}, by {by}", **options)

    metrics = dict(METRICS)
    if not any(MAIN_METRIC in run.history.metrics for _, run in runs):
        own = next((name for _, run in runs if (name := main_metric(run.history))), None)
        metrics = {own: own} if own else {}
    charts = [
        draw("metrics", name, label, by_time, from_zero=True)
        for name, label in metrics.items()
        if any(name in run.history.metrics for _, run in runs)
        for by_time in (False, True)
    ]
    charts += [
        draw("losses", "loss", "Training loss of all layers, log scale", by_time, log_y=True)
        for by_time in (False, True)
    ]
    parts = [
        draw("losses", name, label)
        for name, label in PARTS.items()
        if any(name in run.history.losses for _, run in runs)
    ]
    more = el("details", el("summary", "Parts of the loss"), el("div", parts, cls="charts"))
    return join([el("div", charts, cls="charts"), more if parts else None])


def _card(index: int, run: Run) -> Html:
    value, source = _headline(run)
    history = run.history
    facts: list[tuple[str, str]] = []
    if history.progress:
        planned = run.planned_epochs
        of = "" if planned is None else f" of {planned}"
        plural = "" if history.progress == 1 and not of else "s"
        facts.append(("Trained", f"{history.progress:.4g}{of} {history.unit}{plural}"))
    if MAIN_METRIC in history.metrics:
        best = max(history.metrics[MAIN_METRIC], key=lambda point: point.value)
        at = f"{figure(best.value)}, {history.unit} {best.progress:.4g}"
        facts.append(("Best AP in the log", at))
    if history.minutes:
        facts.append(("Time", duration(history.minutes)))
    if history.sessions > 1:
        facts.append(("Sessions", str(history.sessions)))
    if run.evaluation is not None:
        facts.append(("Checkpoint", run.evaluation.checkpoint.name))
        facts.append(("Parameters", f"{run.evaluation.parameters / 1e6:.2f} M"))
    if run.config and isinstance(model := run.config.get("model"), dict):
        facts.append(("Model", str(model.get("type", "?")).rpartition(".")[2]))
    notes = [el("li", note) for note in run.notes]
    return el(
        "article",
        el("h3", el("span", "", cls=f"swatch {look_of(index)}"), run.name),
        el("p", el("strong", value), " ", el("span", source), cls="headline"),
        el("dl", [el("div", el("dt", k), el("dd", v)) for k, v in facts]),
        el("ul", notes, cls="missing") if notes else None,
        el("p", str(run.work_dir), cls="path"),
        cls="card",
    )


def _headline(run: Run) -> tuple[str, str]:
    """The AP of a run, measured now or as it was logged last."""
    if run.evaluation is not None:
        if run.evaluation.table is not None:
            part = len(run.evaluation.images) < run.evaluation.of_images
            which = f"first {len(run.evaluation.images)} images" if part else "measured now"
            return figure(run.evaluation.table.overall["AP"]), f"AP, {which}"
        for name, value in run.evaluation.metrics.items():
            return figure(value), name
    logged = main_metric(run.history)
    if logged is None:
        return "—", "no AP"
    last = run.history.metrics[logged][-1]
    label = METRICS.get(logged, logged)
    return figure(last.value), f"{label}, as logged at {run.history.unit} {last.progress:.4g}"


def duration(minutes: float) -> str:
    """A time for people."""
    if minutes < 1.5:
        return f"{minutes * 60:.0f} s"
    if minutes < 90:
        return f"{minutes:.1f} min"
    return f"{minutes / 60:.1f} h"


def logged_table(runs: Sequence[Run]) -> Html | None:
    """The last validation of each run, as it was logged; None if there is none."""
    names = list(dict.fromkeys(name for run in runs for name in run.history.metrics))
    rows = []
    for run in runs:
        curves = run.history.metrics
        if curves:
            last = max(points[-1].progress for points in curves.values())
            values = [figure(curves[n][-1].value) if n in curves else "—" for n in names]
            rows.append([run.name, f"{last:.4g}", *values])
    if not rows:
        return None
    return table(["run", "epoch", *(NAMES.get(n, n) for n in names)], rows, cls="figures")
