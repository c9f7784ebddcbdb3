"""Write files atomically."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

UNFINISHED = ".fastdetr_unfinished"  # suffix of a file while it is written


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file atomically: it has the old or the new content, never a part.

    This holds even if the process is killed or the power fails.

    Raises:
        OSError: with the size to write and the free space. The old file is then unchanged, and no
            other file remains.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or the rename may reach the disk before the content
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
    """Sync a rename to disk, if the system can sync folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_unfinished(folder: Path) -> list[Path]:
    """Remove a killed process's unfinished files; return the paths."""
    found = sorted(folder.glob(f"*{UNFINISHED}"))
    for path in found:
        path.unlink()
    return found


def free_space(folder: Path) -> str:
    """Free space of a folder's file system, as text."""
    return _size(shutil.disk_usage(folder).free)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"
