"""Choose the checkpoint's class row for each new class."""

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
        meta: mmengine's meta information in the checkpoint.
        count: Number of rows. Without names, 80 means COCO's labels, 91 and 92 its category ids.
    """
    first = meta.get("dataset_meta") if isinstance(meta, Mapping) else None
    if isinstance(first, list):  # of a mixed ConcatDataset
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
    """Names of the categories in a COCO annotation file, in the file's order, like mmdet.

    Raises:
        UsageError: if the file has no categories.
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
    """Row for each new class; None: the mean of the rows.

    Ignores case, spaces, hyphens and underscores; ``class_synonyms.yaml`` lists synonyms.

    Args:
        own: Own classes.
        names: Class names of the checkpoint's rows.
        class_map: Own class -> the checkpoint's name for it; overrides the matching by name.

    Raises:
        ValueError: if class_map names an unknown class.
    """
    exact = {_plain(name): row for row, name in enumerate(names) if name is not None}
    alike = {_shared_name(name): row for name, row in reversed(exact.items())}
    for mine, name in class_map.items():
        if mine not in own or _plain(name) not in exact:
            listed = ", ".join(map(str, own if mine not in own else filter(None, names)))
            which = (
                f"own class {mine!r}" if mine not in own else f"class {name!r} of the checkpoint"
            )
            raise ValueError(f"class_map: there is no {which}. Known: {listed or 'no names'}.")
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
    """Every listed name -> the first name of its list."""
    import yaml

    groups = yaml.safe_load(Path(__file__).with_name("class_synonyms.yaml").read_text("utf-8"))
    return {_plain(name): _plain(group[0]) for group in groups for name in group}
