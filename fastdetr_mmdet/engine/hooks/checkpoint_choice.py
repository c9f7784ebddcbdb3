"""Choose the checkpoint from which training resumes."""

from __future__ import annotations

import re
from logging import Logger
from pathlib import Path

from mmengine.fileio import LocalBackend, get_file_backend

from ...checkpoints.integrity import load_meta, numbered_checkpoints, what_is_broken
from ...utils.cli import UserError
from ...utils.files import write_atomically

# Position of training in a line of mmengine's log.
_PROGRESS = re.compile(r"\b(Epoch|Iter)\(train\)\s+\[\s*(\d+)")


def choose_checkpoint(
    pointer: Path, folder: Path, template: str, logger: Logger, own_log: Path | None = None
) -> None:
    """Point last_checkpoint, which mmengine resumes from, to an intact file, or remove it.

    Args:
        pointer: The file last_checkpoint of the work directory.
        folder: Folder of the checkpoints.
        template: Template of their names, such as 'epoch_{}.pth'.
        logger: Logger of a warning if last_checkpoint changes.
        own_log: Log folder of this run.
    """
    text = pointer.read_text(errors="replace").strip() if pointer.is_file() else ""
    if text and (not is_local(text) or Path(text).is_dir()):
        return  # on another machine, or DeepSpeed's
    saved = numbered_checkpoints(folder, template)
    named = Path(text) if text else None
    if named is not None and (folder / named.name).is_file():
        here = folder / named.name
        if not (named.is_file() and named.samefile(here)):
            named = here  # the folder was moved or copied
    reason = None if named is None else what_is_broken(named)
    if named is not None and reason is None:
        chosen = _saved_after(pointer, named, saved) or named
        if str(chosen) != text:
            point_to(chosen, pointer)
            logger.warning(f"{pointer} named {text}; resuming from {chosen} instead.")
        return

    problem = "is empty or missing" if named is None else f"names {named}, which {reason}"
    numbers = [number for number, path in saved.items() if path == named]
    # Higher numbers than the damaged one's belong to a former run in the same folder.
    candidates = [path for number, path in saved.items() if not numbers or number < numbers[0]]
    for chosen in candidates:
        reason = what_is_broken(chosen)
        if reason is None:
            point_to(chosen, pointer)
            logger.warning(f"{pointer} {problem}; resuming from {chosen} instead.")
            return
        logger.warning(f"{chosen} {reason}; it is not used.")
    pointer.unlink(missing_ok=True)
    sentence = (
        f"There is nothing to resume from: {pointer} {problem}, and {folder} has no intact "
        f"checkpoint named {template.format('*')}. "
    )
    earlier = _earlier_training(pointer.parent, own_log)
    if earlier:
        sentence += (
            f"But {earlier}. Training still starts from the beginning, which is right if the "
            "earlier one ended before its first checkpoint. If it saved one, stop this training "
            f"and put that checkpoint back into {folder}, or give its path: --resume FILE. For a "
            "new training, give another --work-dir."
        )
    else:
        sentence += "Training starts from the beginning."
    logger.warning(sentence)


def _earlier_training(work_dir: Path, own_log: Path | None) -> str:
    """Describe the last earlier training with a log; "" if none made a step."""
    logs = (path for path in work_dir.glob("*/*.log") if path.parent != own_log)
    for path in sorted(logs, reverse=True):  # folder names are times
        steps = _PROGRESS.findall(path.read_text(errors="replace"))
        if steps:
            kind, number = steps[-1]
            reached = f"{'epoch' if kind == 'Epoch' else 'iteration'} {number}"
            return f"{path} is the log of an earlier training, which reached {reached}"
    return ""


def _saved_after(pointer: Path, named: Path, saved: dict[int, Path]) -> Path | None:
    """An intact checkpoint whose process was killed before it wrote last_checkpoint."""
    # If a user points last_checkpoint to an earlier file, it is newer than all checkpoints.
    written = pointer.stat().st_mtime_ns
    for path in saved.values():
        if path == named or path.stat().st_mtime_ns <= written or what_is_broken(path) is not None:
            continue
        meta, known = load_meta(path), load_meta(named)
        # The time excludes checkpoints of a former run that were copied here.
        if meta.get("iter", 0) > known.get("iter", 0) and meta.get("time", "") >= known["time"]:
            return path
    return None


def point_to(checkpoint: str | Path, pointer: Path) -> None:
    """Write last_checkpoint."""
    write_atomically(pointer, str(checkpoint).encode())


def check_named(path: str) -> None:
    """Refuse a damaged file that the user named; mmengine handles URLs.

    Raises:
        ValueError: if a local file is damaged or missing.
    """
    local = Path(path).expanduser()
    if not is_local(path) or local.is_dir():
        return
    reason = what_is_broken(local)
    if reason is not None:
        raise UserError(
            f"The checkpoint {path} {reason}. Name another one, or give --resume without a path to "
            "use the newest intact one of the work directory."
        )


def is_local(path: str) -> bool:
    """Whether a path is local."""
    return "://" not in path and isinstance(get_file_backend(path), LocalBackend)
