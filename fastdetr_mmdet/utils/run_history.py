"""Read the history of a training: curves from mmengine's logs, epochs from ``progress.json``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

PROGRESS = "progress.json"  # written by TrainingProgressHook
# 2026/11/21 14:36:54 - mmengine - INFO - Epoch(train)  [1][32/64]  lr: ...
_LINE = re.compile(
    r"^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - \S+ - INFO - "
    r"(Epoch|Iter)\((train|val)\) *(?:\[ *(\d+)\])?\[ *(\d+)/ *(\d+)\]",
    re.MULTILINE,
)
_STAMP = "%Y/%m/%d %H:%M:%S"
_TRAIN_LINE = re.compile(r" - (?:Epoch|Iter)\(train\)|Checkpoints will be saved to")


@dataclass(frozen=True)
class Point:
    """One value of a curve.

    Args:
        progress: Epochs since the start, with fractions; iterations if the run has no epochs.
        minutes: Wall-clock time since the start, without pauses and repeated work.
        value: The logged value; finite.
    """

    progress: float
    minutes: float
    value: float


@dataclass(frozen=True)
class Epoch:
    """A complete epoch.

    Args:
        number: Counted from 1.
        minutes, cpu_minutes: Training time from the start to the end of this epoch, without
            validation, checkpoints and start-up. CPU time includes all threads and workers.
        metrics: Results of the validation after this epoch; empty without one.
    """

    number: int
    minutes: float
    cpu_minutes: float
    metrics: dict[str, float]


@dataclass
class RunHistory:
    """History of the training in a work directory.

    Args:
        losses: Curves by name (``loss``, ``loss_cls``), in the order of training.
        metrics: Curves by name (``coco/bbox_mAP``), in the order of training.
        unit: Unit of ``progress``: ``epoch`` or ``iteration``.
        sessions: Number of program runs; more than one after a resume.
        epochs: Record of TrainingProgressHook; empty without that hook.
        parameters: Number of the model's parameters, from the same hook; else 0.
        device: Type of the training's device, from the same hook; else ``cpu``.
        notes: Sentences on missing or skipped data.
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
        return chain(*self.losses.values(), *self.metrics.values())

    @classmethod
    def read(cls, work_dir: str | Path) -> RunHistory:
        """Read all training sessions of a work directory; skip damaged parts and note them.

        A resumed session continues at its first row. Later rows of earlier sessions were repeated,
        or belong to a former training; they and their time are left out.
        """
        history, work_dir = cls(), Path(work_dir)
        history._read_epochs(work_dir)
        sessions = []
        for vis_data in sorted(work_dir.glob("*/vis_data")):
            session = _Session(vis_data.parent)
            history.notes += [f"{session.name}: {note}" for note in session.notes]
            if session.rows:
                sessions.append(session)
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
        """Join the rows of all sessions; later sessions replace the same part of earlier ones."""
        joined: list[_Row] = []
        for session in sessions:
            unit = session.unit
            if joined and unit != self.unit:
                self.notes.append(
                    "Some sessions count epochs, others iterations; the last session's unit is "
                    "shown."
                )
                joined = []
            self.unit = unit
            start = next(row.progress for row in session.rows if row.is_train)
            kept = [row for row in joined if row.progress < start]
            if len(kept) < len(joined):
                part = f"from {unit} {start:.4g} on" if kept else "all"
                self.notes.append(
                    f"{session.name} repeated a part of earlier sessions ({part}); the later rows "
                    "are shown."
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
            self.notes.append(
                f"{skipped} logged {values} NaN or infinite, which leaves a gap in the curves."
            )
        if not rows:
            self.notes.append("There is no training log, or it is empty, so there are no curves.")
        elif not self.metrics:
            self.notes.append("No validation was logged, so there is no AP curve.")


def read_progress(work_dir: str | Path) -> dict[str, Any]:
    """Read the file of TrainingProgressHook in a work directory.

    Returns:
        ``parameters``, ``trained_parameters`` and ``epochs``, as the hook documents them; without
        epochs if the file is missing, or empty, as after a power cut.

    Raises:
        ValueError: if the file does not have the hook's format.
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
            f"{path} does not have TrainingProgressHook's format ({type(error).__name__}: "
            f"{error}). Remove {path.parent} to train that run again."
        ) from error
    return progress


@dataclass(frozen=True)
class _Row:
    """One row of a log: losses of training or metrics of a validation; minutes in the session."""

    progress: float
    minutes: float
    values: dict[str, float]
    is_train: bool


class _Session:
    """One start of the program.

    Attributes:
        unit: Unit of the rows: ``epoch`` or ``iteration``.
        rows: Rows of training and validation, by time; empty without training.
        notes: Problems of the log.
    """

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.rows: list[_Row] = []
        self.notes: list[str] = []
        text = "\n".join(log.read_text("utf-8", "replace") for log in sorted(folder.glob("*.log")))
        logged = self._read_scalars(folder / "vis_data")
        train = [r for r in logged if _is_number(r.get("loss")) and _is_number(r.get("iter"))]
        by_epoch = all(_is_number(row.get("epoch")) for row in train)
        self.unit = "epoch" if by_epoch else "iteration"
        if train:
            self._read_clock(text)
            length = 0
            if by_epoch:
                length = self._length or _epoch_length(train)
                self._count_from_epochs(train)
            self.rows = self._train_rows(train, length)
            self.rows += self._val_rows([row for row in logged if "loss" not in row])
            self.rows.sort(key=lambda row: (row.minutes, row.progress))
        elif _TRAIN_LINE.search(text):
            self.notes.append("this session logged nothing.")

    def _read_scalars(self, folder: Path) -> list[dict[str, Any]]:
        """Read the rows of ``scalars.json``, else of any JSON file there."""
        scalars = folder / "scalars.json"
        rows, broken = [], 0
        for path in [scalars] if scalars.is_file() else sorted(folder.glob("*.json")):
            for line in filter(str.strip, path.read_text("utf-8", "replace").splitlines()):
                try:
                    row = json.loads(line)
                except ValueError:
                    row = None
                if isinstance(row, dict) and _is_number(row.get("step")):
                    rows.append(row)
                else:
                    broken += 1
        if broken:
            lines = "line of the log is" if broken == 1 else "lines of the log are"
            self.notes.append(f"{broken} {lines} damaged and left out.")
        return rows

    def _read_clock(self, text: str) -> None:
        """Read the times of rows from the text log, if there is one."""
        self._trained_at: dict[int, datetime] = {}  # by iteration since the start
        self._validated_at: dict[int, datetime] = {}  # by epoch, or by iteration
        self._length = 0  # iterations of an epoch
        for stamp, kind, mode, epoch, inner, number in _LINE.findall(text):
            try:
                time = datetime.strptime(stamp, _STAMP)
            except ValueError:  # digits that are not a date
                continue
            if mode == "val":
                if epoch and inner == number:  # the row with metrics comes last
                    self._validated_at[int(epoch)] = time
            elif kind == "Epoch" and epoch:
                self._length = int(number)
                self._trained_at[(int(epoch) - 1) * self._length + int(inner)] = time
            else:
                self._trained_at[int(inner)] = time

    def _count_from_epochs(self, rows: Sequence[dict[str, Any]]) -> None:
        """Correct iteration numbers after a resume with another batch size."""
        places = [int(row["iter"]) - (int(row["epoch"]) - 1) * self._length for row in rows]
        if self._length and not all(0 < place <= self._length for place in places):
            shift = int(rows[0]["iter"]) - min(self._trained_at)
            for row in rows:
                row["iter"] -= shift

    def _train_rows(self, rows: Sequence[dict[str, Any]], length: int) -> list[_Row]:
        first = since = int(rows[0]["iter"])
        # include the iterations before the first row
        if length:
            since -= (int(rows[0]["epoch"]) - 1) * length
        elif len(rows) > 1:
            since = min(first, int(rows[1]["iter"]) - first or first)
        lead = seconds = max(since, 1) * _seconds(rows[0])
        begin, before = self._trained_at.get(first), first
        found = []
        for row in rows:
            iteration = int(row["iter"])
            stamp = self._trained_at.get(iteration)
            if stamp is not None and begin is not None:
                seconds = max(lead + (stamp - begin).total_seconds(), seconds)
            else:  # without text log: from the mean time of iterations, without validations
                seconds += max(iteration - before, 0) * _seconds(row)
            before = iteration
            losses = {
                name: float(value)
                for name, value in row.items()
                if (name == "loss" or name.startswith("loss_")) and _is_number(value)
            }
            found.append(_Row(iteration / (length or 1), seconds / 60, losses, True))
        return found

    def _val_rows(self, rows: Sequence[dict[str, Any]]) -> list[_Row]:
        begin, lead = min(self._trained_at.values(), default=None), self.rows[0].minutes
        found = []
        for row in rows:
            metrics = {n: float(v) for n, v in row.items() if "/" in n and _is_number(v)}
            progress = float(row["step"])
            stamp = self._validated_at.get(int(progress))
            if stamp is not None and begin is not None:
                minutes = lead + max((stamp - begin).total_seconds(), 0.0) / 60
            else:
                done = [r.minutes for r in self.rows if r.progress <= progress + 1e-6]
                minutes = max(done, default=lead)
            if metrics:
                found.append(_Row(progress, minutes, metrics, False))
        return found


def _epoch_length(rows: Sequence[dict[str, Any]]) -> int:
    """Estimate iterations per epoch; exact if an epoch's last iteration is logged."""
    return max(-(-int(row["iter"]) // max(int(row["epoch"]), 1)) for row in rows)


def _seconds(row: dict[str, Any]) -> float:
    """Mean time of an iteration."""
    return float(row["time"]) if _is_number(row.get("time")) else 0.0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
