"""The sections of a page that are tables: COCO's figures and config differences."""

from __future__ import annotations

from collections.abc import Sequence

from ..evaluation.coco_table import COLUMNS
from .chart import look_of
from .config_diff import config_differences
from .markup import Html, el, figure, join, table
from .overview import logged_table
from .run import Run

_SHOWN = 40  # more differences than that have to be asked for


def coco_section(runs: Sequence[Run]) -> Html:
    """COCO's figures of each run, for all classes and for each."""
    parts: list[Html] = []
    evaluated = [run for run in runs if run.evaluation is not None]
    tables = [(n, run) for n, run in enumerate(runs) if run.evaluation and run.evaluation.table]
    if tables:
        rows = []
        for number, run in tables:
            evaluation = run.evaluation
            assert evaluation is not None and evaluation.table is not None
            images = len(evaluation.images)
            of = f"{images} of {evaluation.of_images}" if images < evaluation.of_images else images
            overall = evaluation.table.overall
            rows.append(
                [_named(number, run), evaluation.checkpoint.name, str(of)]
                + [figure(overall[column]) for column in COLUMNS]
            )
        parts.append(table(["run", "checkpoint", "images", *COLUMNS], rows, cls="figures"))
        parts.append(
            el(
                "p",
                "Computed for this report, by running the checkpoint on the validation set of the "
                "run's own config: pycocotools's figures, on all images the same as mim test "
                "gives. A dash stands where there are no such objects.",
                cls="note",
            )
        )
        parts += _class_tables(tables)
    for run in evaluated:
        assert run.evaluation is not None
        if run.evaluation.table is None:
            rows = [[name, figure(value)] for name, value in run.evaluation.metrics.items()]
            parts.append(el("h3", run.name))
            parts.append(table(["metric", "value"], rows, cls="figures"))
    others = [run for run in runs if run.evaluation is None]
    logged = logged_table(others)
    if logged is not None:
        parts.append(el("h3", "As logged, where no checkpoint was run"))
        parts.append(logged)
    return join(parts) if parts else el("p", "No run has any figures.", cls="empty")


def config_section(runs: Sequence[Run]) -> Html:
    """The keys in which configs differ."""
    known = [(n, run) for n, run in enumerate(runs) if run.config is not None]
    missing = [run.name for run in runs if run.config is None]
    note = el("p", f"No config to compare: {', '.join(missing)}.", cls="note") if missing else None
    if len(known) < 2:
        return join([el("p", "There are not two configs to compare.", cls="empty"), note])
    rows = [
        [el("span", [_key(key) for key in keys], cls="keys"), *map(_value, values)]
        for keys, values in config_differences([run.config or {} for _, run in known])
    ]
    if not rows:
        return join([el("p", "The configs are the same.", cls="empty"), note])
    head = ["key", *(_named(n, run) for n, run in known)]
    number = "1 difference" if len(rows) == 1 else f"{len(rows)} differences"
    opened = "open" if len(rows) <= _SHOWN else None
    content = el("details", el("summary", number), table(head, rows, cls="config"), open=opened)
    return join([content, note])


def _class_tables(runs: list[tuple[int, Run]]) -> list[Html]:
    """AP per class of all runs side by side, then every figure of each run."""
    parts: list[Html] = [el("h3", "AP by class")]
    names: list[str] = []
    objects: dict[str, int] = {}
    for _, run in runs:
        assert run.evaluation is not None and run.evaluation.table is not None
        names += [name for name in run.evaluation.table.classes if name not in names]
        objects = run.evaluation.table.objects | objects
    rows = []
    for name in names:
        cells: list[Html] = []
        for number, run in runs:
            assert run.evaluation is not None and run.evaluation.table is not None
            value = run.evaluation.table.classes.get(name, {}).get("AP")
            cells.append(_bar(value, number))
        rows.append([name, str(objects[name]), *cells])
    head = ["class", "objects", *(_named(n, run) for n, run in runs)]
    parts.append(table(head, rows, cls="figures bars"))
    for number, run in runs:
        assert run.evaluation is not None and run.evaluation.table is not None
        rows = [
            [name, *(figure(values[column]) for column in COLUMNS)]
            for name, values in run.evaluation.table.classes.items()
        ]
        content = table(["class", *COLUMNS], rows, cls="figures")
        parts.append(el("details", el("summary", "All figures of ", _named(number, run)), content))
    return parts


def _named(number: int, run: Run) -> Html:
    return el("span", el("span", "", cls=f"swatch {look_of(number)}"), run.name, cls="run")


def _bar(value: float | None, number: int) -> Html:
    """A figure with a bar under it."""
    width = f"width:{100 * (value or 0):.1f}%"
    bar = el("span", el("span", "", cls=f"fill {look_of(number)}", style=width), cls="bar")
    return el("td", figure(value), bar)


def _key(key: str) -> Html:
    """A dotted key, which may be broken after its dots."""
    parts = key.split(".")
    return el("code", [[part, Html(".<wbr/>")] for part in parts[:-1]], parts[-1])


def _value(text: str) -> Html:
    return el("td", el("code", text))
