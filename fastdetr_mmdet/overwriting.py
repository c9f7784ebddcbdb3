"""Whether what a command writes would replace what it reads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


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
