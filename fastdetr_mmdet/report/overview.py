"""The first sections of a page: the runs at a glance, and how they learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .chart import SERIES, Line, line_chart, look_of
from .history import History, Point
from .markup import Html, el, figure, join, table
from .run import Run

MAIN_METRIC = "coco/bbox_mAP"
# Curves of their own: logged name -> what it is called
METRICS = {MAIN_METRIC: "AP", "coco/bbox_mAP_50": "AP50"}
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
    def lines(get: Callable[[History], list[Point]], by_time: bool) -> list[Line]:
        return [
            Line(run.name, n, [(p.minutes if by_time else p.progress, p.value) for p in curve])
            for n, run in runs
            if (curve := get(run.history))
        ]

    metrics = dict(METRICS)
    if not any(MAIN_METRIC in run.history.metrics for _, run in runs):
        own = next((name for _, run in runs if (name := main_metric(run.history))), None)
        metrics = {own: own} if own else {}
    charts = []
    for name, label in metrics.items():
        for by_time in (False, True):
            drawn = lines(lambda h, name=name: h.metrics.get(name, []), by_time)
            if drawn:
                x = "minutes" if by_time else f"{unit}s"
                charts.append(
                    line_chart(drawn, x, f"{label} on the validation set", from_zero=True)
                )
    for by_time in (False, True):
        drawn = lines(lambda h: h.losses.get("loss", []), by_time)
        x = "minutes" if by_time else f"{unit}s"
        charts.append(line_chart(drawn, x, "Training loss, all layers (log)", log_y=True))
    details = []
    for name, label in PARTS.items():
        drawn = lines(lambda h, name=name: h.losses.get(name, []), False)
        if drawn:
            details.append(line_chart(drawn, f"{unit}s", label))
    more = [el("details", el("summary", "Parts of the loss"), el("div", details, cls="charts"))]
    return join([el("div", charts, cls="charts"), more if details else None])


def _card(index: int, run: Run) -> Html:
    value, source = _headline(run)
    history = run.history
    facts: list[tuple[str, str]] = []
    if history.progress:
        plural = "" if history.progress == 1 else "s"
        facts.append(("Trained", f"{history.progress:.4g} {history.unit}{plural}"))
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
        cls="card" if index < SERIES else "card repeated",
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
    name = main_metric(run.history)
    if name is None:
        return "—", "no AP"
    last = run.history.metrics[name][-1]
    label = METRICS.get(name, name)
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
    return table(["run", "epoch", *names], rows, cls="figures")
