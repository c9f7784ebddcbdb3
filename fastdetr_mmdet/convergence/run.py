"""One training of the comparison: where it is, how it is started, how far it has come."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from ..engine.hooks.training_progress import read_progress
from ..utils.config import flatten

# What differs between configs of which one trains longer than the other, but not otherwise
_LENGTH = {"max_epochs", "train_cfg.max_epochs"}
_CHECKPOINT = re.compile(r"epoch_(\d+)\.pth\s*$")
_TRAIN = "from fastdetr_mmdet.utils.mmdet_tools import run; run('train.py')"


@dataclass(frozen=True)
class Run:
    """A config with a seed, below the folder of the comparison.

    Args:
        name: The config's, without folder and ending.
        seed: Of the run.
        epochs: When it is finished.
        out: The comparison's folder.
    """

    name: str
    seed: int
    epochs: int
    out: Path

    def __str__(self) -> str:
        return f"{self.name}, seed {self.seed}"

    @property
    def config(self) -> Path:
        """The config as it is trained."""
        return self.out / "configs" / f"{self.name}_seed_{self.seed}.py"

    @property
    def work_dir(self) -> Path:
        """An ordinary work directory of mmengine's runner."""
        return self.out / self.name / f"seed_{self.seed}"

    @property
    def log(self) -> Path:
        """All that the training process printed."""
        return self.work_dir / "train.log"

    @property
    def finished(self) -> bool:
        """Whether the last epoch has been trained and validated."""
        epochs = read_progress(self.work_dir)["epochs"]
        return bool(epochs) and epochs[-1]["epoch"] == self.epochs and "metrics" in epochs[-1]

    @property
    def saved_epoch(self) -> int | None:
        """The epoch whose checkpoint training continues from; None if it begins."""
        pointer = self.work_dir / "last_checkpoint"
        match = _CHECKPOINT.search(pointer.read_text()) if pointer.is_file() else None
        return int(match[1]) if match else None

    def prepare(self, cfg: Config) -> None:
        """Write the config to train from.

        A run may be made longer, if its learning rate does not depend on how long it is.

        Raises:
            ValueError: if the folder holds a run of another config, which it must not continue.
        """
        if self.config.is_file() and self.work_dir.is_dir():
            before = flatten(Config.fromfile(self.config, import_custom_modules=False))
            changed = sorted({key for key, _ in before.items() ^ flatten(cfg).items()})
            longer = cfg.train_cfg.max_epochs >= int(before["train_cfg.max_epochs"])
            if changed and not (longer and set(changed) <= _LENGTH):
                keys = ", ".join(changed[:4])
                raise ValueError(
                    f"{self.work_dir} holds a run of another config or budget (it differs in "
                    f"{keys}); give another --out, or remove that folder to train it again."
                )
        self.config.parent.mkdir(parents=True, exist_ok=True)
        cfg.dump(str(self.config))

    def start(self) -> subprocess.Popen:
        """Train, or continue, in a process of its own, which holds the run's lock.

        Raises:
            RuntimeError: if another process is training it.
        """
        self.work_dir.mkdir(parents=True, exist_ok=True)
        # Inherited, so that it is held as long as the training lives, even if we are killed.
        lock = os.open(self.work_dir / "train.lock", os.O_CREAT | os.O_RDWR)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RuntimeError(
                    f"{self}: {self.work_dir} is being trained by another process "
                    f"({os.pread(lock, 32, 0).decode().strip()}); wait for it or end it."
                ) from None
            command = [sys.executable, "-c", _TRAIN, str(self.config)]
            command += ["--work-dir", str(self.work_dir), "--resume"]
            with self.log.open("ab") as log:
                process = subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[lock],
                    # more threads than cores make small models slower, and side by side all of them
                    env={"OMP_NUM_THREADS": "1", **os.environ},
                )
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"pid {process.pid}\n".encode(), 0)
        finally:
            os.close(lock)
        return process

    def last_lines(self, count: int = 12) -> str:
        """The end of what the training process printed."""
        if not self.log.is_file():
            return "(nothing was printed)"
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join([line for line in lines if line.strip()][-count:])
