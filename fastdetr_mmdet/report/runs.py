"""Find training runs: work directories with logs, configs and checkpoints."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.embedded_config import EmbeddedConfigError, read_plain_config
from ..checkpoints.integrity import numbered_checkpoints, what_is_broken
from ..utils.cli import UsageError, UserError
from ..utils.run_history import RunHistory

if TYPE_CHECKING:
    from ..evaluation.evaluate import Evaluation
    from .pictures import Photo

_SESSION = re.compile(r"\d{8}_\d{6}")
_SEPARATOR = re.compile(r"[-_./ ]+")
_LETTERS = re.compile(r"^[^\W\d_]")  # shortened names start with a letter
_WHAT_TO_GIVE = "Give the --work-dir of the training."
_DEPTH = 4  # levels to search below a given folder


@dataclass
class Run:
    """One work directory and its logs, config and checkpoints.

    Args:
        name: Unique among the runs of a report.
        work_dir: The folder.
        history: Curves and epochs.
        number: Index among the runs; sets the colour.
        config_file: The dumped config of the newest training, or None.
        config: Variables of the config; None if missing or not plain data.
        evaluation: Results of the checkpoint on the validation set, or None.
        sheets: Attention contact sheets with file names of images.
        why_no_sheets: Reason for missing sheets, if a checkpoint was run.
        notes: Sentences on missing data.
    """

    name: str
    work_dir: Path
    history: RunHistory
    number: int = 0
    config_file: Path | None = None
    config: dict[str, Any] | None = None
    evaluation: Evaluation | None = None
    sheets: list[tuple[str, Photo]] = field(default_factory=list)
    why_no_sheets: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether the folder holds neither log, config nor checkpoint."""
        return not (self.history.progress or self.config_file or _is_work_dir(self.work_dir))

    @property
    def evaluated(self) -> Evaluation:
        """The evaluation of a run that has one."""
        assert self.evaluation is not None
        return self.evaluation

    @property
    def planned_epochs(self) -> int | None:
        """The config's number of epochs; None if missing or in iterations."""
        train = (self.config or {}).get("train_cfg")
        planned = train.get("max_epochs") if isinstance(train, dict) else None
        return planned if isinstance(planned, int) and self.history.unit == "epoch" else None


def find_work_dirs(paths: Sequence[Path]) -> list[Path]:
    """Return the given work directories, and those below other given folders.

    Raises:
        UsageError: if a path is not a folder.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            what = "is a file, not a work directory" if path.exists() else "does not exist"
            raise UsageError(f"{path} {what}. {_WHAT_TO_GIVE}")
        found += [path] if _is_work_dir(path) else _below(path, _DEPTH) or [path]
    unique: dict[Path, Path] = {}
    for path in found:
        unique.setdefault(path.resolve(), path)
    return list(unique.values())


def read_runs(work_dirs: Sequence[Path]) -> list[Run]:
    """Read logs and configs of work directories, without checkpoints.

    Raises:
        UsageError: if none of them holds a run.
    """
    names = _names(work_dirs)
    runs = [_read_run(*each) for each in zip(work_dirs, names, range(len(names)), strict=True)]
    if runs and all(run.is_empty for run in runs):
        paths = ", ".join(map(str, work_dirs))
        raise UsageError(f"No log, config or checkpoint in {paths}. {_WHAT_TO_GIVE}")
    return runs


def find_checkpoint(work_dir: Path, which: str = "best") -> Path:
    """Find the best checkpoint, if there is one, or the last; skip damaged files.

    Raises:
        UserError: if there is none, or all are damaged.
    """
    best = sorted(work_dir.glob("best_*.pth"), key=lambda path: path.stat().st_mtime, reverse=True)
    names = ("iter_{}.pth", "epoch_{}.pth")
    last = [path for name in names for path in numbered_checkpoints(work_dir, name).values()]
    pointer = work_dir / "last_checkpoint"
    text = pointer.read_text(errors="replace").strip() if pointer.is_file() else ""
    if text:  # the folder may have been moved, so search here first
        last = [path for path in (work_dir / Path(text).name, Path(text)) if path.is_file()] + last
    candidates = [*(best if which == "best" else []), *last, *best]
    if not candidates:
        raise UserError("There is no checkpoint, neither a numbered nor a best one.")
    reasons = []
    for path in dict.fromkeys(candidates):
        reason = what_is_broken(path)
        if reason is None:
            return path
        reasons.append(f"{path.name} {reason}")
    raise UserError(f"All checkpoints are damaged: {'; '.join(reasons)}.")


def _is_work_dir(path: Path) -> bool:
    return any(
        _SESSION.fullmatch(entry.name) or entry.name == "last_checkpoint" or entry.suffix == ".pth"
        for entry in path.iterdir()
    )


def _below(path: Path, depth: int) -> list[Path]:
    found = []
    for entry in sorted(path.iterdir()):
        if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("."):
            if _is_work_dir(entry):
                found.append(entry)
            elif depth > 1:
                found += _below(entry, depth - 1)
    return found


def _names(paths: Sequence[Path]) -> list[str]:
    """Shortest path suffixes that are unique, without their common prefix.

    The prefix ends at a separator. Names are not bare numbers: ``seed_0``, ``seed_1`` stay
    unchanged.
    """
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            break
    if len(names) < 2:
        return names
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    ends = [match.end() for match in _SEPARATOR.finditer(names[0], 0, sum(1 for _ in alike))]
    usable = (end for end in reversed(ends) if all(_LETTERS.search(name[end:]) for name in names))
    start = next(usable, 0)
    return [name[start:] for name in names]


def _read_run(path: Path, name: str, number: int) -> Run:
    history = RunHistory.read(path)
    run = Run(name, path, history, number, notes=list(history.notes))
    dumped = sorted(path.glob("*/vis_data/config.py"))
    trained = [file for file in dumped if _has_losses(file.with_name("scalars.json"))]
    at_top = sorted(path.glob("*.py"), key=lambda file: file.stat().st_mtime)
    candidates = [*at_top, *dumped, *trained]  # tests also dump configs
    if not candidates:
        run.notes.append("There is no config, which mmengine writes at the start of training.")
        if run.is_empty:
            run.notes.insert(0, f"This folder holds no run. {_WHAT_TO_GIVE}")
        return run
    run.config_file = candidates[-1]
    try:
        run.config = read_plain_config(run.config_file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        run.notes.append(f"The config {run.config_file.name} cannot be read: {error}.")
    except EmbeddedConfigError as error:
        run.notes.append(
            f"The config {run.config_file.name} was not run: {error.why}. "
            "The configs that mmengine writes to a work directory are plain data."
        )
    planned = run.planned_epochs
    if planned is not None and 0 < history.progress and math.ceil(history.progress) < planned:
        run.notes.append(
            f"The log ends at epoch {history.progress:.4g} of {planned}: training was stopped or "
            "killed, or is still running."
        )
    return run


def _has_losses(scalars: Path) -> bool:
    return scalars.is_file() and b'"loss"' in scalars.read_bytes()
