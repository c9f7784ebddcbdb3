"""Which checkpoint of a work directory stands for its run."""

from __future__ import annotations

import re
from pathlib import Path

from ..checkpoints.integrity import what_is_broken

_NUMBERED = re.compile(r"(?:epoch|iter)_(\d+)\.pth")


class NoCheckpointError(FileNotFoundError):
    """A work directory without a checkpoint that is whole; the message is a sentence."""


def find_checkpoint(work_dir: Path, which: str = "best") -> Path:
    """The best checkpoint, if the training kept one, or the last; broken files are passed over.

    Args:
        work_dir: Of the run.
        which: ``best`` or ``last``.

    Raises:
        NoCheckpointError: if there is none, or none is whole.
    """
    best = sorted(work_dir.glob("best_*.pth"), key=lambda path: path.stat().st_mtime, reverse=True)
    numbered = sorted(work_dir.glob("*.pth"), key=_number, reverse=True)
    last = [path for path in numbered if _number(path) >= 0]
    pointer = work_dir / "last_checkpoint"
    if pointer.is_file():
        text = pointer.read_text(errors="replace").strip()
        # the folder may have been moved since, so here comes first
        named = [work_dir / Path(text).name, Path(text)] if text else []
        last = [path for path in named if path.is_file()][:1] + last
    candidates = [*(best if which == "best" else []), *last, *best]
    if not candidates:
        raise NoCheckpointError("There is no checkpoint, finished or best.")
    reasons = []
    for path in dict.fromkeys(candidates):
        reason = what_is_broken(path)
        if reason is None:
            return path
        reasons.append(f"{path.name} {reason}")
    raise NoCheckpointError(f"There is no whole checkpoint: {'; '.join(reasons)}.")


def _number(path: Path) -> int:
    found = _NUMBERED.fullmatch(path.name)
    return int(found[1]) if found else -1
