"""A look into image files, by OpenCV as in training and by Pillow, which is stricter."""

from __future__ import annotations

import os
import stat
import warnings
from dataclasses import dataclass
from typing import BinaryIO

import cv2
import mmcv
from PIL import Image

# OpenCV refuses more; this check decodes no more than Pillow thinks safe.
MOST_SIDE, MOST_PIXELS, MOST_DECODED = 2**20, 2**30, 178_956_970
# What marks the end of a file; padding may follow it.
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_TAIL = 4096
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Look:
    """What an image file is.

    Args:
        size: (width, height) as training sees it, that is, turned by EXIF; None if unreadable.
        stored: (width, height) before that.
        orientation: EXIF's; 1 if there is none.
        problem: Kind of problem, or "".
        note: What is wrong.
    """

    size: tuple[int, int] | None = None
    stored: tuple[int, int] | None = None
    orientation: int = 1
    problem: str = ""
    note: str = ""


def look_at(path: str, decode: bool = False) -> Look:
    """Read an image's size and find out whether training can read it; raises nothing.

    The header and the end of a file are read. A whole file is decoded where they leave a doubt:
    the end is missing, EXIF turns the image, or it is neither JPEG nor PNG.

    Args:
        path: The file.
        decode: Whether to decode every file.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return Look(problem="file-missing", note="it is no regular file")
        if status.st_size == 0:
            return Look(problem="file-unreadable", note="it is empty")
        return _look(path, decode)
    except OSError as error:
        return Look(problem="file-unreadable", note=error.strerror or str(error))
    except MemoryError:
        return Look(problem="file-huge", note="not enough memory to decode it")


def _look(path: str, decode: bool) -> Look:
    """The header by Pillow; what it cannot tell by decoding."""
    with open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about large images and odd EXIF
        try:
            # not Image.open's own limit, which is a state of the process; nothing is decoded yet
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(file)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
        except Exception:  # formats unknown to Pillow, and all that a broken header can raise
            return _decoded(path, None, 1)
        stored, orientation = image.size, _orientation(image)
        if max(stored) > MOST_SIDE or stored[0] * stored[1] > MOST_PIXELS:
            note = f"{stored[0]} x {stored[1]} pixels are more than OpenCV reads"
            return Look(stored=stored, problem="file-unreadable", note=note)
        if stored[0] * stored[1] > MOST_DECODED:
            note = f"{stored[0]} x {stored[1]} pixels"
            return Look(stored, stored, orientation, "file-huge", note)
        if not (decode or orientation != 1 or _end_is_missing(file, image.format)):
            return Look(stored, stored)
        look = _decoded(path, stored, orientation)
        try:
            image.load()
            strict = ""
        except Exception as error:
            strict = str(error)
        if "truncated" in strict.lower() or (
            look.size is None and _end_is_missing(file, image.format, only_known=True)
        ):
            # OpenCV before 4.12 fills what is missing with grey
            return Look(look.size, stored, orientation, "file-truncated", strict or look.note)
        return look


def _decoded(path: str, stored: tuple[int, int] | None, orientation: int) -> Look:
    with open(path, "rb") as file:
        content = file.read()
    try:
        pixels = mmcv.imfrombytes(content, flag="color", backend="cv2")
    except cv2.error as error:
        pixels, reason = None, str(error).strip().splitlines()[-1]
    else:
        reason = "OpenCV cannot decode it"
    if pixels is None:
        return Look(stored=stored, problem="file-unreadable", note=reason)
    size = (int(pixels.shape[1]), int(pixels.shape[0]))
    return Look(size, stored or size, orientation)


def _end_is_missing(file: BinaryIO, kind: str | None, only_known: bool = False) -> bool:
    """Whether the mark at the end is not there, or (unless `only_known`) the format has none."""
    mark = _ENDS.get(kind or "")
    if mark is None:
        return not only_known
    position = file.tell()
    file.seek(0, os.SEEK_END)
    file.seek(max(file.tell() - _TAIL, 0))
    tail = file.read().rstrip(b"\0\r\n ")
    file.seek(position)
    return mark not in tail[-12:]  # PNG's is followed by a checksum


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, where it can be had without decoding."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode the image to look for it at the end
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF; OpenCV then turns nothing
        return 1
    return orientation if orientation in range(2, 9) else 1
