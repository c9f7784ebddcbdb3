"""The curves of a training, joined from the logs of all its sessions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .session import Row, Session, read_session


@dataclass(frozen=True)
class Point:
    """One value of a curve.

    Args:
        progress: Epochs since the start, in fractions; iterations where a run counts no epochs.
        minutes: Wall-clock time since the start, without pauses and without lost work.
        value: What was logged; finite.
    """

    progress: float
    minutes: float
    value: float


@dataclass
class History:
    """Curves of a run.

    Args:
        losses: By name (``loss``, ``loss_cls``), in the order of training.
        metrics: By name (``coco/bbox_mAP``), in the order of training.
        unit: What ``progress`` counts: ``epoch`` or ``iteration``.
        sessions: How many sessions contributed, more than one after a resume.
        notes: What is missing or was left out, in sentences.
    """

    losses: dict[str, list[Point]] = field(default_factory=dict)
    metrics: dict[str, list[Point]] = field(default_factory=dict)
    unit: str = "epoch"
    sessions: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def minutes(self) -> float:
        """Time until the last point."""
        return max((p.minutes for curve in self._curves() for p in curve), default=0.0)

    @property
    def progress(self) -> float:
        """Epochs or iterations until the last point."""
        return max((p.progress for curve in self._curves() for p in curve), default=0.0)

    def _curves(self) -> list[list[Point]]:
        return [*self.losses.values(), *self.metrics.values()]


def read_history(work_dir: Path) -> History:
    """Read all training sessions below a work directory; what is damaged is passed over and told.

    A session that was resumed goes on where its first row is: what earlier sessions logged from
    there on was lost in a kill, or belongs to a former training, and is left out with its time.
    """
    history = History()
    folders = sorted(p for p in work_dir.iterdir() if p.is_dir() and (p / "vis_data").is_dir())
    sessions: list[Session] = []
    for folder in folders:
        session = read_session(folder)
        history.notes += [f"{folder.name}: {note}" for note in session.notes]
        if session.train:
            sessions.append(session)
        elif session.is_training:
            history.notes.append(f"{folder.name}: a session that logged nothing; it is left out.")
    rows = _join(sessions, history)
    if not rows:
        history.notes.append("There is no training log, or it is empty: no curves.")
        return history
    skipped = 0
    for row in rows:
        curves = history.losses if row.is_train else history.metrics
        for name, value in row.values.items():
            if not math.isfinite(value):
                skipped += 1
            elif row.is_train or value >= 0:  # COCO reports -1 for a size that has no objects
                curves.setdefault(name, []).append(Point(row.progress, row.minutes, value))
    if skipped:
        history.notes.append(
            f"{skipped} logged values are NaN or infinite; the curves have gaps there."
        )
    if not history.metrics:
        history.notes.append("No validation was logged: there is no AP curve.")
    return history


def _join(sessions: Sequence[Session], history: History) -> list[Row]:
    """Rows of all sessions, in order; later sessions replace what earlier ones have of theirs."""
    joined: list[Row] = []
    counted = 0
    for session in sessions:
        unit = session.unit
        if joined and unit != history.unit:
            history.notes.append("Sessions count epochs and iterations; only the last kind counts.")
            joined, counted = [], 0
        history.unit = unit
        start = session.train[0].progress
        kept = [row for row in joined if row.progress < start]
        if len(kept) < len(joined):
            what = "all" if not kept else f"from {unit} {start:.4g} on"
            history.notes.append(
                f"{session.name} trained again what earlier sessions had logged ({what}); "
                "the later rows are shown."
            )
        counted = counted + 1 if kept else 1
        before = max((row.minutes for row in kept), default=0.0)
        rows = sorted([*session.train, *session.val], key=lambda row: (row.minutes, row.progress))
        joined = kept + [row.later(before) for row in rows]
    history.sessions = counted
    return joined
