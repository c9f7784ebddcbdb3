"""Read annotation files and values, which may hold anything."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

from ...utils.cli import UsageError

# COCO's lists, and what one entry is called.
LISTS = {"images": "image", "annotations": "annotation", "categories": "category"}
_INT64 = 2**63


class NotCocoError(UsageError):
    """The file is not a COCO annotation file."""


def read_coco(path: str | os.PathLike, needs_boxes: bool = True) -> dict[str, Any]:
    """Read a COCO annotation file.

    Args:
        path: The file.
        needs_boxes: False accepts a file without the list of annotations.

    Raises:
        NotCocoError: if the file cannot be read, is not JSON, or lacks one of COCO's three lists.
    """
    if not Path(path).is_file():
        raise NotCocoError(f"There is no annotation file {path}. Give the path of a file.")
    try:
        coco = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise NotCocoError(f"{path} cannot be read as JSON: {error}.") from error
    if not needs_boxes and isinstance(coco, dict):
        coco.setdefault("annotations", [])
    require_lists(coco, os.fspath(path))
    return coco


def require_lists(coco: Any, source: str) -> None:
    """Refuse parsed JSON that is not an object with COCO's three lists.

    Raises:
        NotCocoError: the message tells what was found.
    """
    if not isinstance(coco, dict):
        detections = isinstance(coco, list) and coco and isinstance(coco[0], dict)
        found = "detections" if detections and "score" in coco[0] else type(coco).__name__
    elif not all(isinstance(coco.get(key), list) for key in LISTS):
        keys = [shown(key, 40) for key in list(coco)[:8]]
        found = f"an object of {', '.join(keys) or 'nothing'}"
    else:
        return
    raise NotCocoError(
        f"{source} is not a COCO annotation file: it holds {found}, not the lists 'images', "
        "'annotations' and 'categories'."
    )


def as_id(value: Any, letters: bool = False) -> int | str | None:
    """Normalise an id as mmdet compares it; None if it is not an id.

    Args:
        value: Integers pass, and floats of whole numbers, which are equal in Python.
        letters: Whether strings pass, too.
    """
    if type(value) is float and value.is_integer():
        value = int(value)
    if (type(value) is int and -_INT64 <= value < _INT64) or (letters and type(value) is str):
        return value
    return None


def number(value: Any) -> float:
    """Convert a number to float, infinite if too large; NaN for other values."""
    if type(value) not in (int, float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def is_file_name(value: Any) -> TypeGuard[str]:
    """Whether a value is a possible file name."""
    try:
        return type(value) is str and value != "" and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:  # an unpaired surrogate
        return False


def shown(value: Any, most: int = 80, to_text: Callable[[Any], str] = str) -> str:
    """Make text from a file printable: no control characters, not too long."""
    try:
        text = to_text(value)
    except (RecursionError, ValueError):  # too deeply nested, or too many digits
        text = f"a {type(value).__name__}"
    text = text if len(text) <= most else text[: most - 3] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
