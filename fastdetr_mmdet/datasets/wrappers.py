"""Handle datasets that wrap others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def leaf_datasets(dataset: Any, key: str = "dataset") -> Iterator[tuple[str, Any]]:
    """Find the datasets within wrappers, which may be nested.

    Yields:
        The config key of each dataset that is not a wrapper, and the dataset.
    """
    while "_wrapped" in getattr(
        dataset, "__dict__", ()
    ):  # engine/hooks/data_order.py's SeededDataset
        dataset = dataset._wrapped
    if hasattr(dataset, "datasets"):  # ConcatDataset
        for index, part in enumerate(dataset.datasets):
            yield from leaf_datasets(part, f"{key}.datasets.{index}")
    elif hasattr(dataset, "dataset"):  # RepeatDataset, ClassBalancedDataset, MultiImageMixDataset
        yield from leaf_datasets(dataset.dataset, f"{key}.dataset")
    else:
        yield key, dataset


def use_first_metainfo(dataset: Any) -> None:
    """Give a ConcatDataset, and wrappers around it, the meta information of its first member.

    If members differ, even only in the palette, mmdet's ConcatDataset has a list, which no reader
    in mmdet expects. mmengine's always has the first one's.
    """
    while isinstance(getattr(dataset, "metainfo", None), list):
        dataset._metainfo = dataset.metainfo[0]
        dataset = getattr(dataset, "dataset", None)
