"""What one session of mmengine's runner logged: one start of the program, one folder."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

# 2026/11/21 14:36:54 - mmengine - INFO - Epoch(train)  [1][32/64]  lr: ...
_LINE = re.compile(
    r"^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - \S+ - INFO - "
    r"(Epoch|Iter)\((train|val)\) *(?:\[ *(\d+)\])?\[ *(\d+)/ *(\d+)\]"
)
_STAMP = "%Y/%m/%d %H:%M:%S"
_TRAIN_LINE = re.compile(r" - (?:Epoch|Iter)\(train\)|Checkpoints will be saved to")


@dataclass(frozen=True)
class Row:
    """One row of the log.

    Args:
        progress: Epochs or iterations since the start of the training.
        minutes: Since the start of the session.
        values: Losses of a training row, metrics of a validation.
    """

    progress: float
    minutes: float
    values: dict[str, float]
    is_train: bool

    def later(self, minutes: float) -> Row:
        """The same row, put off by this time."""
        return replace(self, minutes=self.minutes + minutes)


@dataclass
class Session:
    """The rows of one session, training apart from validation, and what was wrong with them."""

    name: str
    train: list[Row] = field(default_factory=list)
    val: list[Row] = field(default_factory=list)
    unit: str = "epoch"
    is_training: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass
class _Clock:
    """When rows were logged, from the text log; empty without one."""

    train: dict[int, datetime] = field(default_factory=dict)  # by iteration since the start
    val: dict[int, datetime] = field(default_factory=dict)  # by epoch, or by iteration
    epoch_length: int = 0


def read_session(folder: Path) -> Session:
    """Read ``vis_data/scalars.json`` (else the hook's own JSON) and the times of the text log."""
    session = Session(folder.name)
    texts = [_text(path) for path in sorted(folder.glob("*.log"))]
    session.is_training = any(_TRAIN_LINE.search(text) for text in texts)
    rows = _read_rows(folder, session)
    train = [row for row in rows if _is_number(row.get("loss")) and _is_number(row.get("iter"))]
    if not train:
        return session
    session.is_training = True
    session.unit = "epoch" if all(_is_number(row.get("epoch")) for row in train) else "iteration"
    clock = _read_clock(texts)
    _add_train(session, train, clock)
    _add_val(session, [row for row in rows if "loss" not in row], clock)
    return session


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _read_rows(folder: Path, session: Session) -> list[dict[str, Any]]:
    own = folder / "vis_data" / "scalars.json"
    others = sorted((folder / "vis_data").glob("*.json"))
    rows, broken = [], 0
    for path in [own] if own.is_file() else others:
        for line in _text(path).splitlines():
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                broken += 1
                continue
            if isinstance(row, dict) and _is_number(row.get("step")):
                rows.append(row)
            else:
                broken += 1
    if broken:
        lines = "line of the log is" if broken == 1 else "lines of the log are"
        session.notes.append(f"{broken} {lines} cut off or unreadable, and left out.")
    return rows


def _read_clock(texts: list[str]) -> _Clock:
    clock = _Clock()
    for text in texts:
        for line in text.splitlines():
            found = _LINE.match(line)
            if found is None:
                continue
            stamp, kind, mode, epoch, inner, number = found.groups()
            try:
                time = datetime.strptime(stamp, _STAMP)
            except ValueError:  # digits that are no date
                continue
            if mode == "train":
                if kind == "Epoch" and epoch:
                    clock.epoch_length = int(number)
                    clock.train[(int(epoch) - 1) * int(number) + int(inner)] = time
                else:
                    clock.train[int(inner)] = time
            elif epoch and inner == number:  # the row with the metrics comes last
                clock.val[int(epoch)] = time
    return clock


def _add_train(session: Session, rows: list[dict[str, Any]], clock: _Clock) -> None:
    length = clock.epoch_length or _epoch_length(rows)
    first = rows[0]
    # the iterations before the first row are part of the session
    if length and session.unit == "epoch":
        since = int(first["iter"]) - (int(first["epoch"]) - 1) * length
    else:
        since = min(int(row["iter"]) for row in rows[1:2] or rows)
        since = min(int(first["iter"]), since - int(first["iter"]) or since)
    lead = max(since, 1) * _seconds(first)
    begin = clock.train.get(int(first["iter"]))
    elapsed, before = 0.0, int(first["iter"])
    for row in rows:
        iteration = int(row["iter"])
        stamp = clock.train.get(iteration)
        if stamp is not None and begin is not None:
            elapsed = max((stamp - begin).total_seconds(), elapsed)
        else:  # no text log: the mean time of an iteration, which leaves out validations
            elapsed += max(iteration - before, 0) * _seconds(row)
        before = iteration
        progress = iteration / length if session.unit == "epoch" and length else float(iteration)
        losses = {
            name: float(value)
            for name, value in row.items()
            if (name == "loss" or name.startswith("loss_")) and _is_number(value)
        }
        session.train.append(Row(progress, (lead + elapsed) / 60, losses, True))


def _add_val(session: Session, rows: list[dict[str, Any]], clock: _Clock) -> None:
    begin = min(clock.train.values(), default=None)
    lead = session.train[0].minutes
    for row in rows:
        metrics = {n: float(v) for n, v in row.items() if "/" in n and _is_number(v)}
        if not metrics:
            continue
        progress = float(row["step"])
        stamp = clock.val.get(int(progress))
        if stamp is not None and begin is not None:
            minutes = lead + max((stamp - begin).total_seconds(), 0.0) / 60
        else:
            done = [r.minutes for r in session.train if r.progress <= progress + 1e-6]
            minutes = max(done, default=lead)
        session.val.append(Row(progress, minutes, metrics, False))


def _epoch_length(rows: list[dict[str, Any]]) -> int:
    """Iterations per epoch as far as the rows tell: exact if the last of an epoch is logged."""
    last: dict[int, int] = {}
    for row in rows:
        if _is_number(row.get("epoch")):
            epoch = int(row["epoch"])
            last[epoch] = max(last.get(epoch, 0), int(row["iter"]))
    return max((-(-iteration // max(epoch, 1)) for epoch, iteration in last.items()), default=0)


def _seconds(row: dict[str, Any]) -> float:
    """Mean time of an iteration."""
    return float(row["time"]) if _is_number(row.get("time")) else 0.0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
