"""File backend of mmengine that writes every file as a whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mmengine.fileio import LocalBackend, get_file_backend, register_backend

from ...utils.files import write_atomically


class AtomicBackend(LocalBackend):
    """Files of this machine, which come into being whole."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes."""
        write_atomically(Path(filepath), obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = "utf-8") -> None:
        """Write text."""
        write_atomically(Path(filepath), obj.encode(encoding))


@contextlib.contextmanager
def whole_files() -> Iterator[None]:
    """Within it, what mmengine writes to this machine's disks comes into being whole.

    backend_args would do for its Runner, but not for its FlexibleRunner (FSDP) and for published
    models, which hand none on.
    """
    before = type(get_file_backend("."))
    register_backend("local", AtomicBackend, force=True, prefixes="")
    try:
        yield
    finally:
        register_backend("local", before, force=True, prefixes="")
