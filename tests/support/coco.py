"""Small COCO annotations, and functions that change them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

Change = Callable[[dict], Any]


def sound(*names: str, width: int = 100, height: int = 80) -> dict:
    """Valid annotations: images with ids from 7, each with a cat and a dog, ids from 11."""
    names = names or ("a.jpg", "b.jpg")
    return {
        "info": {"year": 2024},
        "images": [
            {"id": 7 + n, "file_name": name, "width": width, "height": height}
            for n, name in enumerate(names)
        ],
        "annotations": [
            {"id": 11 + n, "image_id": 7 + n // 2, "category_id": 1 + n % 2,
             "bbox": [n % 20, 2, 9, 9.5], "area": 81, "iscrowd": 0}
            for n in range(2 * len(names))
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }  # fmt: skip


def changed(apply: Change, coco: dict | None = None) -> dict:
    """Change valid annotations."""
    coco = coco or sound()
    apply(coco)
    return coco


def box(**values: Any) -> Change:
    """Set keys of the first annotation."""
    return lambda coco: coco["annotations"][0].update(values)


def image(**values: Any) -> Change:
    """Set keys of the first image."""
    return lambda coco: coco["images"][0].update(values)


def category(n: int = 1, **values: Any) -> Change:
    """Set keys of a category."""
    return lambda coco: coco["categories"][n].update(values)


def drop(key: str, of: str = "annotations", n: int = 0) -> Change:
    """Remove a key of an entry."""
    return lambda coco: coco[of][n].pop(key)


def add(of: str, **values: Any) -> Change:
    """Repeat the last entry with changes."""
    return lambda coco: coco[of].append(copy.deepcopy(coco[of][-1]) | values)


def each(of: str, **values: Any) -> Change:
    """Set keys of all entries."""
    return lambda coco: [entry.update(values) for entry in coco[of]]
