"""Put a config on a common budget, and check its data before training."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..datasets.check.sets import CheckedSet, check_set, sets_of_config
from ..utils.cli import UsageError
from ..utils.config import read_config

# Arguments of schedulers that are numbers of epochs if by_epoch=True.
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
    """Read a config and apply the budget of the comparison.

    The learning-rate schedule keeps its shape: lengths in epochs are scaled to the new number of
    epochs; a warm-up in iterations stays.

    Args:
        path: A config that trains by epoch.
        epochs: At least 1.
        seed: Seed of the run.
        val_interval: Epochs between validations.
        data_root: Folder of the dataset, for configs with ``derived_keys``.
        options: As for ``--cfg-options``.

    Raises:
        UsageError: if the config does not exist or does not fit the budget.
    """
    if not path.is_file():
        raise UsageError(f"There is no config {path}.")
    cfg = read_config(path)
    changes = dict(options or {})
    if data_root is not None:
        if "train_dataloader.dataset.data_root" not in cfg.get("derived_keys", {}):
            raise UsageError(
                f"{path} does not support --data-root: its derived_keys do not use data_root. Set "
                "its data loaders and evaluators by --cfg-options."
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
    # Every run has atomic checkpoints, exact resuming and the progress file. One checkpoint is
    # enough, because only curves are compared.
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
        if scheduler.get("by_epoch", True):
            for key in _LENGTHS:
                if isinstance(scheduler.get(key), int) and scheduler[key] > 0:
                    scheduler[key] = scaled(scheduler[key])
            if "milestones" in scheduler:
                scheduler["milestones"] = sorted(set(map(scaled, scheduler["milestones"])))


def check_data(cfg: Config, path: Path) -> None:
    """Check that the annotation files of COCO-style datasets exist and have the config's classes.

    Reads only local files.

    Raises:
        UsageError: the message names the file or its missing classes, and the option to set.
    """
    if isinstance(cfg.get("classes"), str):
        raise UsageError(
            f"{path}: classes is the text {cfg.classes!r}, not a list. Give one class with a "
            f"comma: --cfg-options classes={cfg.classes},"
        )
    try:
        sets = sets_of_config(cfg)
    except Exception as error:  # custom datasets may raise anything
        raise UsageError(f"{path}: its datasets cannot be built: {error!r}.") from error
    for checked in sets:
        if checked.images is None or "://" in checked.annotations:
            continue  # not local
        try:
            missing, names = _missing_classes(checked)
        except UsageError as error:
            raise UsageError(
                f"{path}: {error} Give the folder of the data by --data-root, or the file by "
                "--cfg-options (in configs with derived_keys: train_ann=FILE val_ann=FILE)."
            ) from error
        if missing:
            raise UsageError(
                f"{path}: {checked.annotations}: {missing}. To train all of the file's classes, "
                f"give --cfg-options classes={','.join(names)}{',' * (len(names) == 1)} or, if a "
                "name has spaces or is a number, set metainfo.classes in a config."
            )


@functools.cache
def _missing_classes(checked: CheckedSet) -> tuple[str, list[str]]:
    """Describe classes that an annotation file lacks; also return the classes that it has.

    Cached for all configs and seeds.
    """
    report = check_set(checked)
    missing = report.findings.get("class-without-category")
    categories = [entry for entry in report.coco["categories"] if isinstance(entry, dict)]
    return report.sentence(missing) if missing else "", [str(c.get("name")) for c in categories]
