"""Checkpoint files: written whole or not at all, and recognised when they are broken."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.runner import CheckpointLoader

UNFINISHED = ".fastdetr_unfinished"  # follows the name of a file while it is written


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


def what_is_broken(path: str | Path) -> str | None:
    """Say in words what is wrong with a checkpoint file, or return None if it is whole.

    torch writes zip archives: the list of contents comes last, and each content has a checksum.
    Files in torch's older format have neither; they are tried.
    """
    path = Path(path)
    if not path.is_file():
        return "does not exist"
    if path.stat().st_size == 0:
        return "is empty"
    with open(path, "rb") as file:
        start = file.read(4)
    if start[:1] == b"\x80":
        return _what_is_broken_in_pickle(path)
    if start != b"PK\x03\x04":
        return "is no file of torch.save, or only the first bytes of one"
    if not zipfile.is_zipfile(path):
        return "is cut short: the list of contents at its end is missing"
    if not _has_checksums():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        return f"is damaged ({error})"
    return None if damaged is None else f"is damaged: {damaged} in it has a wrong checksum"


def _has_checksums() -> bool:
    """Whether torch writes them, which set_crc32_options can turn off."""
    return getattr(torch.serialization, "get_crc32_options", lambda: True)()


def _what_is_broken_in_pickle(path: Path) -> str | None:
    try:
        torch.load(path, map_location="meta", weights_only=True)
    except (EOFError, IndexError, RuntimeError, struct.error) as error:
        return f"is cut short or damaged ({error})"
    except Exception:  # not torch's: for mmengine to load, or to complain about
        return None
    return None


def load_meta(path: Path) -> dict[str, Any]:
    """What a whole checkpoint says of itself; empty if it comes from elsewhere."""
    checkpoint = CheckpointLoader.load_checkpoint(str(path), "cpu", logger="silent")
    meta = checkpoint.get("meta")
    return meta if isinstance(meta, dict) else {}


def numbered_checkpoints(folder: Path, template: str) -> dict[int, Path]:
    """The checkpoints of a folder by the number in their names, highest first.

    Args:
        folder: It may not exist.
        template: With one {} for the number, such as 'epoch_{}.pth'.
    """
    before, after = re.split(r"{[^}]*}", template)
    pattern = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    matches = [(pattern.fullmatch(path.name), path) for path in folder.glob("*")]
    found = {int(match[1]): path for match, path in matches if match}
    return dict(sorted(found.items(), reverse=True))


def free_space(folder: Path) -> str:
    """How much the file system of a folder still takes, in words."""
    return _size(shutil.disk_usage(folder).free)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"
