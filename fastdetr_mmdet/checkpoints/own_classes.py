"""Choose the class row of a checkpoint from which each new class starts."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset

from ..utils.cli import UsageError
from .classes import COCO_IDS, OFFICIAL
from .files import dataset_meta

Names = Sequence[str | None]


def names_of_rows(meta: Any, count: int) -> Names:
    """Class name of each row of a checkpoint; None for rows without a known class.

    Args:
        meta: mmengine's notes in the checkpoint.
        count: Rows. 80, 91 and 92 without names are taken for COCO's: labels, or category ids.
    """
    first = meta.get("dataset_meta") if isinstance(meta, Mapping) else None
    if isinstance(first, list):  # of a ConcatDataset of different ones
        meta = {"dataset_meta": first[0]}
    known = (dataset_meta(meta) or {}).get("classes") or dict(meta or {}).get("CLASSES") or ()
    if len(known) == count and not isinstance(known, str):
        return [str(name) for name in known]
    coco = CocoDataset.METAINFO["classes"]
    if count in OFFICIAL.values():
        by_id = dict(zip(COCO_IDS, coco, strict=True))
        return [by_id.get(number) for number in range(count)]
    return coco if count == len(coco) else [None] * count


def read_classes(file: str | Path) -> list[str]:
    """Names of the categories in a COCO annotation file, in its order, which is mmdet's.

    Raises:
        UsageError: if there are none.
    """
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
        names = [str(category["name"]) for category in content["categories"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        names = []
        reason = f"{type(error).__name__}: {error}"
    else:
        reason = "its categories are empty"
    if not names:
        raise UsageError(
            f"--classes-of {file} names no classes ({reason}); give the COCO annotation file of "
            "your training set."
        )
    return names


def match(own: Sequence[str], names: Names, class_map: Mapping[str, str]) -> list[int | None]:
    """Row from which each new class starts; None: the mean of the rows.

    Case, spaces, hyphens and underscores do not count. ``class_synonyms.yaml`` lists other names.

    Args:
        own: Own classes.
        names: Of the checkpoint's rows.
        class_map: Own class -> the checkpoint's name for it; comes first.

    Raises:
        ValueError: if class_map names a class that is not there.
    """
    exact = {_plain(name): row for row, name in enumerate(names) if name is not None}
    alike = {_shared_name(name): row for name, row in reversed(exact.items())}
    for mine, name in class_map.items():
        if mine not in own or _plain(name) not in exact:
            listed = ", ".join(map(str, own if mine not in own else filter(None, names)))
            which = (
                f"own class {mine!r}" if mine not in own else f"class {name!r} of the checkpoint"
            )
            raise ValueError(f"class_map: there is no {which}. There are: {listed or 'no names'}.")
    rows = []
    for mine in own:
        plain = _plain(class_map.get(mine, mine))
        rows.append(exact.get(plain, alike.get(_shared_name(plain))))
    return rows


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name.lower())


def _shared_name(plain: str) -> str:
    return _synonyms().get(plain, plain)


@functools.cache
def _synonyms() -> dict[str, str]:
    """Every listed name -> the first one of its list."""
    import yaml

    groups = yaml.safe_load(Path(__file__).with_name("class_synonyms.yaml").read_text("utf-8"))
    return {_plain(name): _plain(group[0]) for group in groups for name in group}
