"""Reading annotation files, whatever is in them."""

from __future__ import annotations

import gc
import json
import os
import re
from pathlib import Path
from typing import Any

LISTS = ("images", "annotations", "categories")

# Outlines are most of a COCO file and no business of boxes. They are lists of nothing but numbers;
# a string that contains this text would have its quotes escaped.
_OUTLINES = re.compile(r'("segmentation"\s*:\s*)\[[\[\]\d.,\s+\-eE]*\]')


class NotCocoError(ValueError):
    """The file is no COCO annotation file; the message says in a sentence what is missing."""


def read_coco(
    path: str | os.PathLike, outlines: bool = True, needs_boxes: bool = True
) -> dict[str, Any]:
    """Read a COCO annotation file.

    Args:
        path: The file.
        outlines: False leaves polygons out, which takes a third of the time; only for files that
            are known to be JSON.
        needs_boxes: False takes a file without annotations for one of no annotation.

    Raises:
        NotCocoError: if it cannot be read, is no JSON, or lacks one of COCO's three lists.
    """
    name = os.fspath(path)
    try:
        raw = Path(name).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NotCocoError(f"{name} cannot be read: {reason}.") from error
    if raw.startswith(b"\xef\xbb\xbf"):
        raise NotCocoError(
            f"{name} begins with a byte order mark, at which mmdet fails; "
            "save it as UTF-8 without one."
        )
    try:
        text = raw.decode()
        del raw
        coco = _parse(text if outlines else _OUTLINES.sub(r"\1[]", text))
    except UnicodeDecodeError as error:
        raise NotCocoError(f"{name} is no JSON in UTF-8: {error}.") from error
    except RecursionError as error:
        raise NotCocoError(f"{name} is nested too deeply for an annotation file.") from error
    except ValueError as error:  # also whole numbers of more than 4300 digits
        raise NotCocoError(f"{name} is no JSON: {error}.") from error
    if not needs_boxes and isinstance(coco, dict):
        coco.setdefault("annotations", [])
    missing = missing_lists(coco)
    if missing:
        raise NotCocoError(f"{name} is no COCO annotation file: {missing}.")
    return coco


def _parse(text: str) -> Any:
    """Parse JSON without the garbage collector, which would walk millions of objects in vain."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        return json.loads(text)
    finally:
        if enabled:
            gc.enable()


def missing_lists(coco: Any) -> str:
    """What keeps a parsed JSON file from being COCO's, in words; '' if nothing does."""
    if isinstance(coco, list):
        first = coco[0] if coco else None
        if isinstance(first, dict) and "score" in first:
            return "it is a list of detections, as evaluation writes them"
        return "it is a list, not an object with 'images', 'annotations' and 'categories'"
    if not isinstance(coco, dict):
        return f"it is {coco!r:.40}, not an object with 'images', 'annotations' and 'categories'"
    lacks = [key for key in LISTS if key not in coco]
    if lacks:
        return f"it has no list {_quoted(lacks)} (it has {_quoted(list(coco)) or 'nothing'})"
    wrong = [key for key in LISTS if not isinstance(coco[key], list)]
    return f"its {_quoted(wrong)} must be a list" if wrong else ""


def _quoted(names: list[str], most: int = 8) -> str:
    shown = ", ".join(repr(str(name)[:40]) for name in names[:most])
    return shown + (", ..." if len(names) > most else "")
