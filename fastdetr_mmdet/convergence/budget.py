"""Puts a config onto a common budget: data, epochs, seed, and what a run has to keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config

# Of a scheduler that counts epochs, what is a number of epochs
_LENGTHS = ("begin", "end", "T_max", "step_size", "total_steps")
_PACKAGE = "fastdetr_mmdet"


def apply_budget(
    path: str | Path,
    epochs: int,
    seed: int,
    val_interval: int = 1,
    data_root: str | None = None,
    options: dict[str, Any] | None = None,
) -> Config:
    """A config as it is to be trained.

    The learning rate's schedule keeps its shape: what is counted in epochs is stretched or shrunk
    to the new number of epochs; a warm-up that is counted in iterations stays.

    Args:
        path: A config that trains by epoch.
        epochs: How many; at least 1.
        seed: Of the run.
        val_interval: Epochs between validations.
        data_root: Data set, for configs that take it (those with ``derived_keys``).
        options: As for ``--cfg-options``.

    Raises:
        FileNotFoundError: if there is no such config.
        ValueError: if the config cannot be put onto the budget; says which and why.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no config {path}.")
    cfg = Config.fromfile(path)
    changes = dict(options or {})
    if data_root is not None:
        if "train_dataloader.dataset.data_root" not in cfg.get("derived_keys", {}):
            raise ValueError(
                f"{path} does not take --data-root, because its derived_keys do not say what "
                "follows from data_root; leave --data-root out and set its data loaders and "
                "evaluators by --cfg-options."
            )
        changes.setdefault("data_root", data_root)
    if changes:
        cfg.merge_from_dict(changes)
    if cfg.get("train_cfg") is None or "max_epochs" not in cfg.train_cfg:
        raise ValueError(
            f"{path} does not train by epoch: its train_cfg has no max_epochs, which the budget is "
            "counted in."
        )
    if cfg.get("val_evaluator") is None:
        raise ValueError(f"{path} has no val_evaluator, so it has no AP to compare.")
    _set_epochs(cfg, epochs)
    cfg.train_cfg.val_interval = val_interval
    cfg.train_cfg.pop("val_begin", None)
    cfg.train_cfg.pop("dynamic_intervals", None)
    cfg.randomness = dict(cfg.get("randomness") or {}, seed=seed)
    _keep_what_is_needed(cfg)
    return cfg


def _set_epochs(cfg: Config, epochs: int) -> None:
    before = cfg.train_cfg.max_epochs
    cfg.train_cfg.max_epochs = epochs
    if "max_epochs" in cfg:
        cfg.max_epochs = epochs
    schedulers = cfg.get("param_scheduler") or []
    for scheduler in [schedulers] if isinstance(schedulers, dict) else schedulers:
        if not scheduler.get("by_epoch", True):
            continue
        for key in _LENGTHS:
            if isinstance(scheduler.get(key), int) and scheduler[key] > 0:
                scheduler[key] = _scaled(scheduler[key], before, epochs)
        if "milestones" in scheduler:
            scaled = {_scaled(milestone, before, epochs) for milestone in scheduler["milestones"]}
            scheduler["milestones"] = sorted(scaled)


def _scaled(length: int, before: int, after: int) -> int:
    return max(round(length * after / before), 1)


def _keep_what_is_needed(cfg: Config) -> None:
    """Whole checkpoints, exact resuming and the progress file, whatever the config has."""
    imports = cfg.get("custom_imports") or dict(imports=[], allow_failed_imports=False)
    if _PACKAGE not in imports["imports"]:
        imports["imports"] = [*imports["imports"], _PACKAGE]
    cfg.custom_imports = imports
    hooks = cfg.get("default_hooks") or {}
    # one checkpoint: the curves are what is compared
    hooks["checkpoint"] = dict(
        type=f"{_PACKAGE}.AtomicCheckpointHook", interval=1, max_keep_ckpts=1
    )
    hooks["exact_resume"] = dict(type=f"{_PACKAGE}.ExactResumeHook")
    cfg.default_hooks = hooks
    cfg.custom_hooks = [
        *(cfg.get("custom_hooks") or []),
        dict(type=f"{_PACKAGE}.TrainingProgressHook"),
    ]
