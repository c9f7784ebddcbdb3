"""Finds wrong data before anything is trained: missing files, classes that are not there."""

from __future__ import annotations

import argparse
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

_LOADERS = ("train_dataloader", "val_dataloader")


def check_data(cfg: Config, path: str | Path, options: dict[str, Any] | None = None) -> None:
    """Check that a config's annotation files are there and have its classes.

    Only files of this machine are looked at, and classes only in files of COCO's form.

    Args:
        cfg: With its options merged.
        path: The config's, for the message.
        options: What ``--cfg-options`` gave; tells the user's classes from the config's own.

    Raises:
        FileNotFoundError: if an annotation file is missing.
        ValueError: if one has no JSON in it, or lacks a class.
    """
    for loader in _LOADERS:
        for dataset in _datasets((cfg.get(loader) or {}).get("dataset")):
            file = _annotations(dataset)
            if file is None:
                continue
            if not file.is_file():
                raise FileNotFoundError(_missing(cfg, path, loader, file))
            classes = (dataset.get("metainfo") or {}).get("classes")
            if classes and file.suffix == ".json":
                _check_classes(cfg, path, file, classes, options or {})


def _datasets(dataset: Any) -> Iterator[Any]:
    """A data set, or those within a wrapper such as RepeatDataset or ConcatDataset."""
    if isinstance(dataset, dict):
        if "ann_file" in dataset:
            yield dataset
        for inner in [dataset.get("dataset"), *(dataset.get("datasets") or [])]:
            yield from _datasets(inner)


def _annotations(dataset: Any) -> Path | None:
    """The annotation file as the data set will look for it; None if it is not on a disk."""
    name, root = dataset["ann_file"], dataset.get("data_root") or ""
    if not isinstance(name, str) or not name or "://" in name or "://" in root:
        return None
    return None if dataset.get("backend_args") else Path(root) / name


def _missing(cfg: Config, path: str | Path, loader: str, file: Path) -> str:
    if "data_root" not in cfg.get("derived_keys", {}).get(f"{loader}.dataset.data_root", ""):
        return f"{path}: there is no annotation file {file}; set {loader}.dataset by --cfg-options."
    key = "train_ann" if loader.startswith("train") else "val_ann"
    name = f", or its name below that by --cfg-options {key}=FILE.json" if key in cfg else ""
    return (
        f"{path}: there is no annotation file {file}; give the folder of your data by "
        f"--data-root{name}."
    )


def _check_classes(
    cfg: Config, path: str | Path, file: Path, classes: Any, options: dict[str, Any]
) -> None:
    if isinstance(classes, str):
        raise ValueError(
            f"{path}: classes is the text {classes!r}, not a list; one class is given with a "
            f"comma, --cfg-options classes={classes},"
        )
    known = _categories(file)
    missing = [str(name) for name in classes if name not in known]
    if not missing:
        return
    text = (
        f"{path} trains {_shorten(missing)}, which {file} does not have; its categories are "
        f"{_shorten(known)}."
    )
    if "{classes}" in cfg.get("derived_keys", {}).values():
        if not any(key.endswith("classes") for key in options):
            text += " These classes are the config's defaults."
        text += f" {_advice(known)}"
    raise ValueError(text)


def _advice(known: tuple[str, ...]) -> str:
    """How to give a file's categories to ``--cfg-options``, which drops spaces, if it can be."""
    option = f"classes={','.join(known)}{',' * (len(known) == 1)}"
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=DictAction)
    if all(re.fullmatch(r"\w[\w.-]*", name) for name in known):
        if parser.parse_args(["--cfg-options", option]).cfg_options["classes"] == [*known]:
            return f"To train all of the file's, give --cfg-options {option}"
    return (
        "Names with spaces or signs in them, or numbers, cannot be given by --cfg-options: rename "
        "the categories, or write a config with this one as _base_ that sets metainfo.classes of "
        "both data loaders and the head's num_classes."
    )


@functools.lru_cache
def _categories(file: Path) -> tuple[str, ...]:
    """Names of a file's categories; read once for all configs."""
    try:
        return tuple(category["name"] for category in json.loads(file.read_text())["categories"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is not an annotation file of COCO's form ({type(error).__name__}: {error})."
        ) from error


def _shorten(names: Any, most: int = 8) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
