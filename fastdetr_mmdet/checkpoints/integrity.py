"""Tell whole checkpoint files from broken ones."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import CheckpointLoader


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
