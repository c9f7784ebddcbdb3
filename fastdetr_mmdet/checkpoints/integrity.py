"""Detect damaged checkpoint files."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import CheckpointLoader

# First bytes of files that are often mistaken for checkpoints.
_OTHERS = {
    b"\x89PNG": "but a PNG image",
    b"\xff\xd8\xff": "but a JPEG image",
    b"<": "but a web page, as saved by a download that needs a confirmation",
    b"\x1f\x8b": "but a gzip archive; unpack it first",
    b"version https://git-lfs": "but a Git LFS pointer; fetch the file with git lfs pull",
}
_SCRIPT = (
    "is a TorchScript program, not weights. Get the weights from its authors. If you trust them, "
    "save the program's weights with torch.save(torch.jit.load(path).state_dict(), new_path)"
)


def what_is_broken(path: str | Path, thorough: bool = True) -> str | None:
    """Describe what is wrong with a checkpoint file; None if it is intact.

    torch writes zip archives, with the list of contents last and a checksum for each entry. Files
    in torch's older format have neither and are loaded to test them.

    Args:
        path: The file.
        thorough: False: check only the beginning, the end and the list of contents.
    """
    path = Path(path)
    if not path.is_file():
        return "does not exist"
    with open(path, "rb") as file:
        start = file.read(32)
    if not start:
        return "is empty"
    if start[:1] == b"\x80":
        return _what_is_broken_in_pickle(path) if thorough else None
    if not start.startswith(b"PK\x03\x04"):
        begins = f"or is only its beginning: it starts with {start[:8]!r}"
        what = next((what for head, what in _OTHERS.items() if start.startswith(head)), begins)
        return f"is not a file of torch.save, {what}"
    if not zipfile.is_zipfile(path):
        return "is cut short: the list of contents at its end is missing"
    try:
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                return _SCRIPT  # torch.load's criterion
            # set_crc32_options turns checksums off
            checksums = getattr(torch.serialization, "get_crc32_options", lambda: True)()
            damaged = archive.testzip() if thorough and checksums else None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        return f"is damaged ({error})"
    return None if damaged is None else f"is damaged: {damaged} in it has a wrong checksum"


def _what_is_broken_in_pickle(path: Path) -> str | None:
    try:
        torch.load(path, map_location="meta", weights_only=True)
    except (EOFError, IndexError, RuntimeError, struct.error) as error:
        return f"is cut short or damaged ({error})"
    except Exception:  # not torch's format: left to mmengine
        return None
    return None


def load_meta(path: Path) -> dict[str, Any]:
    """Meta information of an intact checkpoint; empty if another program wrote it."""
    checkpoint = CheckpointLoader.load_checkpoint(str(path), "cpu", logger="silent")
    meta = checkpoint.get("meta")
    return meta if isinstance(meta, dict) else {}


def numbered_checkpoints(folder: Path, template: str) -> dict[int, Path]:
    """Checkpoints of a folder by the number in their names, highest first."""
    before, after = re.split(r"{[^}]*}", template)
    pattern = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    matches = [(pattern.fullmatch(path.name), path) for path in folder.glob("*")]
    found = {int(match[1]): path for match, path in matches if match}
    return dict(sorted(found.items(), reverse=True))
