"""The annotation files, image folders and classes that a config or a runner's data sets name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.fileio import get_local_path
from mmengine.utils import is_abs

from .check import MAX_ASPECT, check_annotations
from .read import read_coco
from .report import Report


@dataclass(frozen=True)
class CheckedSet:
    """One data set to check.

    Args:
        annotations: The annotation file.
        images: The folder of the images; None if it is not on this machine's disks.
        root: ``data_root``, below which files may lie too; or None.
        classes: ``metainfo.classes``; None: all.
        evaluated: Whether it is for validation or test.
        needs_boxes: Whether the file must have annotations.
        backend_args: As the data set has them, to read the annotation file by.
    """

    annotations: str
    images: str | None
    root: str | None = None
    classes: tuple[str, ...] | None = None
    evaluated: bool = True
    needs_boxes: bool = True
    backend_args: Any = field(default=None, compare=False)


def check_set(checked: CheckedSet, max_aspect: float = MAX_ASPECT, outlines: bool = True) -> Report:
    """Read and check the annotations of one data set; its images are left alone.

    Raises:
        NotCocoError: if there is no COCO annotation file.
    """
    with get_local_path(checked.annotations, backend_args=checked.backend_args) as local:
        coco = read_coco(local, outlines, checked.needs_boxes)
    return check_annotations(
        coco, checked.annotations, checked.classes, checked.evaluated, max_aspect
    )


def is_coco(cls: Any) -> bool:
    """Whether a class of data sets reads its file as CocoDataset does (LVIS's, say, does not)."""
    return (
        isinstance(cls, type)
        and issubclass(cls, CocoDataset)
        and all(
            getattr(cls, name) is getattr(CocoDataset, name)
            for name in ("COCOAPI", "load_data_list", "parse_data_info", "_join_prefix")
        )
    )


def sets_of_config(config: Config, splits: Sequence[str] = ("train", "val")) -> list[CheckedSet]:
    """The COCO-style data sets of a config's dataloaders, each once."""
    found = []
    for split in splits:
        loader = config.get(f"{split}_dataloader") or {}
        for dataset in _unwrap_config(loader.get("dataset")):
            name = dataset.get("type")
            cls = DATASETS.get(name) if isinstance(name, str) else name
            if is_coco(cls) and isinstance(dataset.get("ann_file"), str):
                found.append(_from_config(dataset, cls, split))
    return list(dict.fromkeys(found))


def sets_of_dataset(
    dataset: Any, evaluated: bool, needs_boxes: bool = True
) -> list[tuple[CheckedSet, Any]]:
    """The COCO-style data sets in a data set and its wrappers, with the objects themselves."""
    found = []
    for leaf in _unwrap(dataset):
        annotations = getattr(leaf, "ann_file", None)
        if not is_coco(type(leaf)) or not isinstance(annotations, str):
            continue
        classes = leaf.metainfo.get("classes")
        checked = _make(
            annotations,
            (leaf.data_prefix or {}).get("img"),
            leaf.data_root,
            None if isinstance(classes, str) else classes,
            evaluated,
            leaf.backend_args,
            needs_boxes,
        )
        found.append((checked, leaf))
    return found


def _unwrap(dataset: Any) -> Iterator[Any]:
    while "_wrapped" in getattr(dataset, "__dict__", ()):  # hooks/data_order.py's SeededDataset
        dataset = dataset._wrapped
    for part in getattr(dataset, "datasets", ()):  # ConcatDataset
        yield from _unwrap(part)
    if hasattr(dataset, "dataset"):  # RepeatDataset, ClassBalancedDataset, MultiImageMixDataset
        yield from _unwrap(dataset.dataset)
    else:
        yield dataset


def _unwrap_config(dataset: Any) -> Iterator[Any]:
    if isinstance(dataset, dict):
        parts = [*(dataset.get("datasets") or ()), dataset.get("dataset")]
        for part in parts:
            yield from _unwrap_config(part)
        yield dataset


def _from_config(dataset: Any, cls: Any, split: str) -> CheckedSet:
    root = dataset.get("data_root") or ""
    prefix = dataset.get("data_prefix") or {}
    classes = (dataset.get("metainfo") or {}).get("classes", cls.METAINFO.get("classes"))
    return _make(
        _join(root, dataset["ann_file"]),
        _join(root, prefix.get("img") or ""),
        root,
        None if isinstance(classes, str) else classes,
        split != "train",
        dataset.get("backend_args"),
        split != "test",
    )


def _join(root: str, path: str) -> str:
    return path if not root or is_abs(path) else os.path.join(root, path)


def _make(
    annotations: str,
    images: str | None,
    root: str | None,
    classes: Sequence[str] | None,
    evaluated: bool,
    backend_args: Any,
    needs_boxes: bool,
) -> CheckedSet:
    local = "://" not in (images or "") and (backend_args or {}).get("backend", "local") == "local"
    return CheckedSet(
        annotations,
        (images or os.curdir) if local else None,
        root or None,
        None if classes is None else tuple(classes),
        evaluated,
        needs_boxes,
        backend_args,
    )
