"""Put a config on a common budget, and check its data before anything is trained."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..utils.cli import UsageError

# What a scheduler that counts epochs has as a number of epochs
_LENGTHS = ("begin", "end", "T_max", "step_size", "total_steps")
_PACKAGE = "fastdetr_mmdet"


def apply_budget(
    path: Path,
    epochs: int,
    seed: int,
    val_interval: int = 1,
    data_root: str | None = None,
    options: dict[str, Any] | None = None,
) -> Config:
    """Read a config and change it to what is to be trained.

    The learning rate's schedule keeps its shape: what is counted in epochs is stretched or shrunk
    to the new number of epochs; a warm-up that is counted in iterations stays.

    Args:
        path: A config that trains by epoch.
        epochs: At least 1.
        seed: Of the run.
        val_interval: Epochs between validations.
        data_root: Data set, for configs that take it (those with ``derived_keys``).
        options: As for ``--cfg-options``.

    Raises:
        UsageError: if the config does not exist or cannot be put on the budget.
    """
    if not path.is_file():
        raise UsageError(f"There is no config {path}.")
    cfg = Config.fromfile(path)
    changes = dict(options or {})
    if data_root is not None:
        if "train_dataloader.dataset.data_root" not in cfg.get("derived_keys", {}):
            raise UsageError(
                f"{path} does not take --data-root: its derived_keys do not say what depends on "
                "data_root. Set its data loaders and evaluators by --cfg-options."
            )
        changes.setdefault("data_root", data_root)
    cfg.merge_from_dict(changes)
    if "max_epochs" not in (cfg.get("train_cfg") or {}):
        raise UsageError(f"{path} does not train by epoch: its train_cfg has no max_epochs.")
    if cfg.get("val_evaluator") is None:
        raise UsageError(f"{path} has no val_evaluator, so it has no AP to compare.")
    _set_epochs(cfg, epochs)
    cfg.train_cfg.val_interval = val_interval
    cfg.train_cfg.pop("val_begin", None)
    cfg.train_cfg.pop("dynamic_intervals", None)
    cfg.randomness = dict(cfg.get("randomness") or {}, seed=seed)
    imports = cfg.get("custom_imports") or dict(imports=[], allow_failed_imports=False)
    imports["imports"] = list(dict.fromkeys([*imports["imports"], _PACKAGE]))
    cfg.custom_imports = imports
    # Whole checkpoints, exact resuming and the progress file, whatever the config has. One
    # checkpoint is enough, because the curves are compared.
    checkpoint = dict(type=f"{_PACKAGE}.AtomicCheckpointHook", interval=1, max_keep_ckpts=1)
    resume = dict(type=f"{_PACKAGE}.ExactResumeHook")
    hooks = cfg.get("default_hooks") or {}
    cfg.default_hooks = dict(hooks, checkpoint=checkpoint, exact_resume=resume)
    progress = dict(type=f"{_PACKAGE}.TrainingProgressHook")
    cfg.custom_hooks = [*(cfg.get("custom_hooks") or []), progress]
    return cfg


def _set_epochs(cfg: Config, epochs: int) -> None:
    before = cfg.train_cfg.max_epochs
    cfg.train_cfg.max_epochs = epochs
    if "max_epochs" in cfg:
        cfg.max_epochs = epochs

    def scaled(length: int) -> int:
        return max(round(length * epochs / before), 1)

    schedulers = cfg.get("param_scheduler") or []
    for scheduler in [schedulers] if isinstance(schedulers, dict) else schedulers:
        if not scheduler.get("by_epoch", True):
            continue
        for key in _LENGTHS:
            if isinstance(scheduler.get(key), int) and scheduler[key] > 0:
                scheduler[key] = scaled(scheduler[key])
        if "milestones" in scheduler:
            scheduler["milestones"] = sorted(set(map(scaled, scheduler["milestones"])))


def check_data(cfg: Config, path: Path) -> None:
    """Check that a config's annotation files exist and have its classes.

    Only files of this machine are read, and classes only from COCO's JSON.

    Args:
        cfg: With its options merged.
        path: Its file, for the message.

    Raises:
        UsageError: names the file, or the classes that it lacks, and the option to give.
    """
    derived = cfg.get("derived_keys", {})
    for loader in ("train_dataloader", "val_dataloader"):
        for dataset in _datasets((cfg.get(loader) or {}).get("dataset")):
            name, root = dataset["ann_file"], dataset.get("data_root") or ""
            if not name or dataset.get("backend_args") or "://" in f"{root} {name}":
                continue
            file = Path(root) / name
            if not file.is_file():
                fix = f"Set {loader}.dataset by --cfg-options."
                if "data_root" in derived.get(f"{loader}.dataset.data_root", ""):
                    fix = "Give the folder of your data by --data-root"
                    key = loader[: -len("dataloader")] + "ann"
                    fix += f", or --cfg-options {key}=FILE.json." if key in cfg else "."
                raise UsageError(f"{path}: there is no annotation file {file}. {fix}")
            classes = (dataset.get("metainfo") or {}).get("classes")
            if isinstance(classes, str):
                raise UsageError(
                    f"{path}: classes is the text {classes!r}, not a list. Give one class with a "
                    f"comma: --cfg-options classes={classes},"
                )
            if classes and file.suffix == ".json":
                known = _categories(file)
                missing = [str(name) for name in classes if name not in known]
                if missing:
                    fix = _advice(known) if "{classes}" in derived.values() else ""
                    raise UsageError(
                        f"{path}: {file} does not have the classes {_shorten(missing)}; it has "
                        f"{_shorten(known)}.{fix}"
                    )


def _datasets(dataset: Any) -> Iterator[Any]:
    """A data set, or those within a wrapper such as RepeatDataset or ConcatDataset."""
    if isinstance(dataset, dict):
        if isinstance(dataset.get("ann_file"), str):
            yield dataset
        for inner in [dataset.get("dataset"), *(dataset.get("datasets") or [])]:
            yield from _datasets(inner)


@functools.lru_cache
def _categories(file: Path) -> tuple[str, ...]:
    """Names of a file's categories; read once for all configs."""
    try:
        return tuple(category["name"] for category in json.loads(file.read_text())["categories"])
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"{file} is not an annotation file of COCO's form ({reason}).") from error


def _advice(known: tuple[str, ...]) -> str:
    if all(re.fullmatch(r"[^\W\d][\w.-]*", name) for name in known):
        option = f"classes={','.join(known)}{',' * (len(known) == 1)}"
        return f" To train all of the file's, give --cfg-options {option}"
    return (
        " --cfg-options drops spaces and takes digits for numbers: rename the categories, or write "
        "a config that sets metainfo.classes of both data loaders and the head's num_classes."
    )


def _shorten(names: Any, most: int = 8) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
