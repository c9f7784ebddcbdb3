"""Folder of a run: config, checkpoints, trained epochs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ...utils import derived_keys  # noqa: F401 (reads configs as mmdet's tools do)
from ...utils.cli import UsageError
from ...utils.config import read_config


@dataclass
class RunFolder:
    """A folder from ``init``, or a work directory of mmdet."""

    config_file: Path
    work_dir: Path  # folder of the checkpoints

    @classmethod
    def find(cls, path: Path) -> RunFolder:
        """Find the run of a folder or config file; UsageError if there is none."""
        if (path / "config.py").is_file():
            path /= "config.py"
        if path.is_file() and path.suffix == ".py":
            return cls(path, _work_dir(path))
        if not path.is_dir():
            raise UsageError(f"There is no folder {path}. Make a run: init DATA --out {path}.")
        config = newest(path, "*.py")
        if config is None:
            raise UsageError(f"{path} is not a run: it holds no config. Make one: init DATA.")
        return cls(config, path)

    @cached_property
    def config(self) -> Config:
        """The config of the training, or of the folder if it is not trained yet."""
        saved = self.work_dir / self.config_file.name
        return read_config(saved if saved.is_file() else self.config_file)

    def checkpoint(self) -> Path:
        """The best checkpoint; the last one if there is no best; UsageError if there is none."""
        found = newest(self.work_dir, "best_*.pth") or self.last_checkpoint()
        if found is None:
            file = self.config_file
            run = shlex.quote(str(file.parent if file.name == "config.py" else file))
            raise UsageError(
                f"{self.work_dir} holds no checkpoint. Train first: python -m fastdetr_mmdet train "
                f"{run}"
            )
        return found

    def last_checkpoint(self) -> Path | None:
        """The last checkpoint of the training."""
        pointer = self.work_dir / "last_checkpoint"
        if not pointer.is_file():
            return None
        path = self.work_dir / Path(pointer.read_text().strip()).name  # may have been moved
        return path if path.is_file() else None

    def epochs(self, options: Mapping[str, Any] | None = None) -> tuple[int, int]:
        """Trained epochs, and planned epochs with these changes of the config."""
        config = read_config(self.config_file)
        config.merge_from_dict(options or {})
        planned = config.train_cfg.get("max_epochs", 0)
        last = self.last_checkpoint()
        if last is None:
            return 0, planned
        from ...checkpoints.integrity import load_meta

        return int(load_meta(last).get("epoch", 0)), planned


def newest(folder: Path, pattern: str) -> Path | None:
    """The newest file of a name; None if there is none."""
    return max(folder.glob(pattern), key=lambda file: file.stat().st_mtime, default=None)


def _work_dir(config_file: Path) -> Path:
    """Work directory of the config; next to the config first, in case both were moved."""
    beside = config_file.parent / "work"
    if beside.is_dir():
        return beside
    if list(config_file.parent.glob("*.pth")):
        return config_file.parent  # the config is a work directory's copy
    named = read_config(config_file).get("work_dir")
    return Path(named or Path("work_dirs") / config_file.stem)
