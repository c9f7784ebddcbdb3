"""The history of a training: its curves from mmengine's logs, its epochs from ``progress.json``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

PROGRESS = "progress.json"  # written by TrainingProgressHook
# 2026/11/21 14:36:54 - mmengine - INFO - Epoch(train)  [1][32/64]  lr: ...
_LINE = re.compile(
    r"^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - \S+ - INFO - "
    r"(Epoch|Iter)\((train|val)\) *(?:\[ *(\d+)\])?\[ *(\d+)/ *(\d+)\]"
)
_STAMP = "%Y/%m/%d %H:%M:%S"
_TRAIN_LINE = re.compile(r" - (?:Epoch|Iter)\(train\)|Checkpoints will be saved to")


@dataclass(frozen=True)
class Point:
    """One value of a curve.

    Args:
        progress: Epochs since the start, in fractions; iterations if the run counts no epochs.
        minutes: Wall-clock time since the start, without pauses and without lost work.
        value: The logged value; finite.
    """

    progress: float
    minutes: float
    value: float


@dataclass(frozen=True)
class Epoch:
    """One epoch that was trained to its end.

    Args:
        number: Counted from 1.
        minutes, cpu_minutes: Training time from the start to the end of this epoch, without
            validation, checkpoints and start-up. CPU time is that of all threads and workers.
        metrics: Of the validation after this epoch; empty without one.
    """

    number: int
    minutes: float
    cpu_minutes: float
    metrics: dict[str, float]


@dataclass
class RunHistory:
    """All that one work directory tells about its training.

    Args:
        losses: Curves by name (``loss``, ``loss_cls``), in the order of training.
        metrics: Curves by name (``coco/bbox_mAP``), in the order of training.
        unit: What ``progress`` counts: ``epoch`` or ``iteration``.
        sessions: How many program runs contributed; more than one after a resume.
        epochs: What TrainingProgressHook kept; empty if the run did not use it.
        parameters: Number of the model's parameters, from the same hook; else 0.
        device: Type of the device that it trained on, from the same hook; else ``cpu``.
        notes: What is missing or was left out, in sentences.
    """

    losses: dict[str, list[Point]] = field(default_factory=dict)
    metrics: dict[str, list[Point]] = field(default_factory=dict)
    unit: str = "epoch"
    sessions: int = 0
    epochs: list[Epoch] = field(default_factory=list)
    parameters: int = 0
    device: str = "cpu"
    notes: list[str] = field(default_factory=list)

    @property
    def minutes(self) -> float:
        """Time until the last point."""
        return max((point.minutes for point in self._points()), default=0.0)

    @property
    def progress(self) -> float:
        """Epochs or iterations until the last point."""
        return max((point.progress for point in self._points()), default=0.0)

    def _points(self) -> Iterator[Point]:
        for curve in [*self.losses.values(), *self.metrics.values()]:
            yield from curve

    @classmethod
    def read(cls, work_dir: str | Path) -> RunHistory:
        """Read all training sessions of a work directory; skip damaged parts and note them.

        A resumed session continues at its first row. Rows that earlier sessions logged from there
        on were lost in a kill or belong to a former training; they and their time are left out.
        """
        history, work_dir = cls(), Path(work_dir)
        history._read_epochs(work_dir)
        sessions = []
        for vis_data in sorted(work_dir.glob("*/vis_data")):
            session = _read_session(vis_data.parent)
            history.notes += [f"{session.name}: {note}" for note in session.notes]
            if session.rows:
                sessions.append(session)
            elif session.is_training:
                history.notes.append(f"{session.name}: this session logged nothing.")
        history._add_curves(history._join(sessions))
        return history

    def _read_epochs(self, work_dir: Path) -> None:
        try:
            progress = read_progress(work_dir)
        except ValueError as error:
            self.notes.append(str(error))
            return
        self.parameters, self.device = progress["parameters"], progress.get("device", "cpu")
        minutes = cpu_minutes = 0.0
        for entry in progress["epochs"]:
            minutes += entry.get("train_seconds", 0.0) / 60
            cpu_minutes += entry.get("train_cpu_seconds", 0.0) / 60
            metrics = entry.get("metrics", {})
            self.epochs.append(Epoch(entry["epoch"], minutes, cpu_minutes, metrics))

    def _join(self, sessions: Sequence[_Session]) -> list[_Row]:
        """Rows of all sessions in order; a later session replaces the same part of earlier ones."""
        joined: list[_Row] = []
        for session in sessions:
            unit = session.unit
            if joined and unit != self.unit:
                self.notes.append("Sessions count epochs and iterations; the last kind is shown.")
                joined = []
            self.unit = unit
            start = next(row.progress for row in session.rows if row.is_train)
            kept = [row for row in joined if row.progress < start]
            if len(kept) < len(joined):
                part = f"from {unit} {start:.4g} on" if kept else "all"
                self.notes.append(
                    f"{session.name} trained again what earlier sessions had logged ({part}); the "
                    "later rows are shown."
                )
            self.sessions = self.sessions + 1 if kept else 1
            before = max((row.minutes for row in kept), default=0.0)
            joined = kept + [replace(row, minutes=row.minutes + before) for row in session.rows]
        return joined

    def _add_curves(self, rows: Sequence[_Row]) -> None:
        skipped = 0
        for row in rows:
            curves = self.losses if row.is_train else self.metrics
            for name, value in row.values.items():
                if not math.isfinite(value):
                    skipped += 1
                elif row.is_train or value >= 0:  # COCO reports -1 for a size without objects
                    curves.setdefault(name, []).append(Point(row.progress, row.minutes, value))
        if skipped:
            values = "value is" if skipped == 1 else "values are"
            self.notes.append(f"{skipped} logged {values} NaN or infinite: a gap in the curves.")
        if not rows:
            self.notes.append("There is no training log, or it is empty: no curves.")
        elif not self.metrics:
            self.notes.append("No validation was logged: there is no AP curve.")


def read_progress(work_dir: str | Path) -> dict[str, Any]:
    """Read what TrainingProgressHook wrote to a work directory.

    Returns:
        ``parameters``, ``trained_parameters`` and ``epochs``, as the hook documents them; without
        epochs if there is no file yet, or an empty one, as a power cut may leave it.

    Raises:
        ValueError: if the file is not what the hook writes.
    """
    path = Path(work_dir) / PROGRESS
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not text.strip("\0 \n"):
        return {"parameters": 0, "trained_parameters": 0, "epochs": []}
    try:
        progress = json.loads(text)
        [entry["epoch"] for entry in progress["epochs"]]
        progress["parameters"] += 0
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not what TrainingProgressHook writes ({type(error).__name__}: {error}). "
            f"Remove {path.parent} to train that run again."
        ) from error
    return progress


@dataclass(frozen=True)
class _Row:
    """One row of a log: losses of training or metrics of a validation; minutes in the session."""

    progress: float
    minutes: float
    values: dict[str, float]
    is_train: bool


@dataclass
class _Session:
    """One start of the program: its rows in order of time, and what was wrong with its log."""

    name: str
    rows: list[_Row] = field(default_factory=list)
    unit: str = "epoch"
    is_training: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass
class _Clock:
    """When rows were logged, from the text log; empty without one."""

    train: dict[int, datetime] = field(default_factory=dict)  # by iteration since the start
    val: dict[int, datetime] = field(default_factory=dict)  # by epoch, or by iteration
    epoch_length: int = 0


def _read_session(folder: Path) -> _Session:
    """Read ``vis_data/scalars.json`` (else any JSON there) and the times of the text log."""
    session = _Session(folder.name)
    texts = [path.read_text("utf-8", "replace") for path in sorted(folder.glob("*.log"))]
    rows = _read_rows(folder / "vis_data", session)
    train = [row for row in rows if _is_number(row.get("loss")) and _is_number(row.get("iter"))]
    session.is_training = bool(train) or any(_TRAIN_LINE.search(text) for text in texts)
    if train:
        by_epoch = all(_is_number(row.get("epoch")) for row in train)
        session.unit = "epoch" if by_epoch else "iteration"
        clock = _read_clock(texts)
        found = _train_rows(train, clock, by_epoch)
        found += _val_rows([row for row in rows if "loss" not in row], clock, found)
        session.rows = sorted(found, key=lambda row: (row.minutes, row.progress))
    return session


def _read_rows(folder: Path, session: _Session) -> list[dict[str, Any]]:
    scalars = folder / "scalars.json"
    rows, broken = [], 0
    for path in [scalars] if scalars.is_file() else sorted(folder.glob("*.json")):
        for line in path.read_text("utf-8", "replace").splitlines():
            try:
                row = json.loads(line or "null")
            except ValueError:
                row = "broken"
            if isinstance(row, dict) and _is_number(row.get("step")):
                rows.append(row)
            elif line.strip():
                broken += 1
    if broken:
        lines = "line of the log is" if broken == 1 else "lines of the log are"
        session.notes.append(f"{broken} {lines} cut off or unreadable, and left out.")
    return rows


def _read_clock(texts: Sequence[str]) -> _Clock:
    clock = _Clock()
    for line in (line for text in texts for line in text.splitlines()):
        found = _LINE.match(line)
        if found is None:
            continue
        stamp, kind, mode, epoch, inner, number = found.groups()
        try:
            time = datetime.strptime(stamp, _STAMP)
        except ValueError:  # digits that are not a date
            continue
        if mode == "val":
            if epoch and inner == number:  # the row with the metrics comes last
                clock.val[int(epoch)] = time
        elif kind == "Epoch" and epoch:
            clock.epoch_length = int(number)
            clock.train[(int(epoch) - 1) * int(number) + int(inner)] = time
        else:
            clock.train[int(inner)] = time
    return clock


def _train_rows(rows: Sequence[dict[str, Any]], clock: _Clock, by_epoch: bool) -> list[_Row]:
    length = (clock.epoch_length or _epoch_length(rows)) if by_epoch else 0
    first = int(rows[0]["iter"])
    # the iterations before the first row are part of the session
    if length:
        since = first - (int(rows[0]["epoch"]) - 1) * length
    else:
        since = min(first, int(rows[1]["iter"]) - first or first) if len(rows) > 1 else first
    seconds = max(since, 1) * _seconds(rows[0])
    begin, lead, before = clock.train.get(first), seconds, first
    found = []
    for row in rows:
        iteration = int(row["iter"])
        stamp = clock.train.get(iteration)
        if stamp is not None and begin is not None:
            seconds = max(lead + (stamp - begin).total_seconds(), seconds)
        else:  # no text log: the mean time of an iteration, which leaves out validations
            seconds += max(iteration - before, 0) * _seconds(row)
        before = iteration
        losses = {
            name: float(value)
            for name, value in row.items()
            if (name == "loss" or name.startswith("loss_")) and _is_number(value)
        }
        found.append(_Row(iteration / (length or 1), seconds / 60, losses, True))
    return found


def _val_rows(rows: Sequence[dict[str, Any]], clock: _Clock, train: Sequence[_Row]) -> list[_Row]:
    begin, lead = min(clock.train.values(), default=None), train[0].minutes
    found = []
    for row in rows:
        metrics = {n: float(v) for n, v in row.items() if "/" in n and _is_number(v)}
        if not metrics:
            continue
        progress = float(row["step"])
        stamp = clock.val.get(int(progress))
        if stamp is not None and begin is not None:
            minutes = lead + max((stamp - begin).total_seconds(), 0.0) / 60
        else:
            done = [row.minutes for row in train if row.progress <= progress + 1e-6]
            minutes = max(done, default=lead)
        found.append(_Row(progress, minutes, metrics, False))
    return found


def _epoch_length(rows: Sequence[dict[str, Any]]) -> int:
    """Iterations per epoch as the rows tell it: exact if the last one of an epoch is logged."""
    last: dict[int, int] = {}
    for row in rows:
        epoch = int(row["epoch"])
        last[epoch] = max(last.get(epoch, 0), int(row["iter"]))
    return max(-(-iteration // max(epoch, 1)) for epoch, iteration in last.items())


def _seconds(row: dict[str, Any]) -> float:
    """Mean time of an iteration."""
    return float(row["time"]) if _is_number(row.get("time")) else 0.0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
