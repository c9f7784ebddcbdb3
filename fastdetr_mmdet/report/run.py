"""The training runs that a report is about."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.embedded_config import ForeignConfigError, read_plain_config
from .history import History, read_history

if TYPE_CHECKING:
    from ..evaluation.evaluate import Evaluation
    from .attention import Sheet

_SESSION = re.compile(r"\d{8}_\d{6}")
_SEPARATOR = re.compile(r"[-_./ ]+")
_LETTERS = re.compile(r"^[^\W\d_]")  # what is left of a name begins with a letter
WHAT_TO_GIVE = "Give the folder that --work-dir named at the training."
_DEPTH = 4  # of work directories below a folder that is given


@dataclass
class Run:
    """One work directory, and what could be read of it.

    Args:
        name: Unique among the runs of a report.
        work_dir: The folder.
        history: Its curves.
        config_file: The config as mmengine dumped it for the newest training, or None.
        config: Its variables, or None if it is missing or no plain data.
        evaluation: What the checkpoint finds on the validation set, or None.
        sheets: Attention contact sheets.
        why_no_sheets: In a sentence, where a checkpoint was run and there are none.
        notes: What is missing, in sentences.
    """

    name: str
    work_dir: Path
    history: History
    config_file: Path | None = None
    config: dict[str, Any] | None = None
    evaluation: Evaluation | None = None
    sheets: list[Sheet] = field(default_factory=list)
    why_no_sheets: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def is_nothing(self) -> bool:
        """Whether the folder holds neither log, config nor checkpoint."""
        return not (self.history.progress or self.config_file or _is_work_dir(self.work_dir))

    @property
    def planned_epochs(self) -> int | None:
        """Epochs that the config asks for; None if it does not, or counts iterations."""
        train = (self.config or {}).get("train_cfg")
        planned = train.get("max_epochs") if isinstance(train, dict) else None
        return planned if isinstance(planned, int) and self.history.unit == "epoch" else None


def find_work_dirs(paths: Sequence[Path]) -> list[Path]:
    """The work directories that are given, and those below a folder that is none itself.

    Raises:
        FileNotFoundError: if a path is no folder; in a sentence.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            what = "is a file, not a work directory" if path.exists() else "does not exist"
            raise FileNotFoundError(f"{path} {what}. {WHAT_TO_GIVE}")
        found += [path] if _is_work_dir(path) else _below(path, _DEPTH) or [path]
    unique: dict[Path, Path] = {}
    for path in found:
        unique.setdefault(path.resolve(), path)
    return list(unique.values())


def read_runs(work_dirs: Sequence[Path]) -> list[Run]:
    """Read logs and configs of work directories; checkpoints are not touched.

    Raises:
        FileNotFoundError: if there is nothing of a run in any of them; in a sentence.
    """
    names = _names(work_dirs)
    runs = [_read_run(path, name) for path, name in zip(work_dirs, names, strict=True)]
    if runs and all(run.is_nothing for run in runs):
        paths = ", ".join(map(str, work_dirs))
        verb = "holds no run" if len(runs) == 1 else "hold no runs"
        raise FileNotFoundError(f"{paths} {verb}: no log, config or checkpoint. {WHAT_TO_GIVE}")
    return runs


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
    """As many of the last folder names as it takes to tell the runs apart, less what all share."""
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            break
    shared = _shared_prefix(names)
    return [name[shared:] for name in names]


def _shared_prefix(names: Sequence[str]) -> int:
    """Letters that all names begin with, up to a separator, if what is left still says something.

    ``seed_0`` and ``seed_1`` stay as they are: a bare number is no name.
    """
    if len(names) < 2:
        return 0
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    shared = sum(1 for _ in alike)
    ends = [match.end() for match in _SEPARATOR.finditer(names[0], 0, shared)]
    said = (end for end in reversed(ends) if all(_LETTERS.search(n[end:]) for n in names))
    return next(said, 0)


def _read_run(path: Path, name: str) -> Run:
    run = Run(name, path, read_history(path))
    run.notes += run.history.notes
    dumped = sorted(path.glob("*/vis_data/config.py"))
    trained = [file for file in dumped if _has_losses(file.with_name("scalars.json"))]
    at_top = sorted(path.glob("*.py"), key=lambda file: file.stat().st_mtime)
    candidates = [*at_top, *dumped, *trained]  # a test may have written a config of its own
    if not candidates:
        run.notes.append("There is no config: mmengine writes one when a training starts.")
        if run.is_nothing:
            run.notes.insert(0, f"This folder holds no run. {WHAT_TO_GIVE}")
        return run
    run.config_file = candidates[-1]
    try:
        text = run.config_file.read_text(encoding="utf-8")
        run.config = read_plain_config(text)
    except (OSError, UnicodeDecodeError) as error:
        run.notes.append(f"The config {run.config_file.name} cannot be read: {error}.")
    except ForeignConfigError as error:
        run.notes.append(
            f"The config {run.config_file.name} was not run: {error.why}. "
            "The configs that mmengine writes to a work directory are plain data."
        )
    planned, reached = run.planned_epochs, run.history.progress
    if planned is not None and 0 < reached and math.ceil(reached) < planned:
        run.notes.append(
            f"The log ends at epoch {reached:.4g} of {planned}: the training was stopped or "
            "killed, or is still running."
        )
    return run


def _has_losses(scalars: Path) -> bool:
    return scalars.is_file() and b'"loss"' in scalars.read_bytes()
