"""Writing files: as a whole or not at all, and never over what is read."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

UNFINISHED = ".fastdetr_unfinished"  # follows the name of a file while it is written


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that its name stands for the old content or the new one, never for a part.

    That holds also if the process is killed at any moment or the power fails.

    Raises:
        OSError: that tells what was to be written and how much space there is. The name then stands
            for what it stood for before, and nothing else is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else the new name may reach the disk before the content
        os.replace(unfinished, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        if not isinstance(error, OSError):
            raise
        reason = f"{error.strerror}; {_size(len(content))} to write, {free_space(path.parent)} free"
        raise OSError(error.errno, reason, str(path)) from error
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Bring the new name to the disk. Where a folder cannot be synced, the system does it later."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_unfinished(folder: Path) -> list[Path]:
    """Remove what a killed process left behind while it wrote checkpoints; return the paths."""
    found = sorted(folder.glob(f"*{UNFINISHED}"))
    for path in found:
        path.unlink()
    return found


def free_space(folder: Path) -> str:
    """How much the file system of a folder still takes, in words."""
    return _size(shutil.disk_usage(folder).free)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"


def would_overwrite(outputs: Iterable[Path], sources: Iterable[str | Path]) -> Path | None:
    """The first output that is the same file as a source, under whatever name or link, or None.

    Args:
        outputs: Files to write, there already or not.
        sources: Files to read; what is not there, or is an address, counts as no file.
    """
    read = {_identity(source) for source in sources} - {None}
    return next((output for output in outputs if _identity(output) in read), None)


def _identity(path: str | Path) -> tuple[int, int] | None:
    """What os.path.samefile compares; taken once per file, of which there may be thousands."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
