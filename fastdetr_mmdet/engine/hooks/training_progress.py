"""Record time and metrics of each epoch, across interruptions."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from ...utils.files import write_atomically
from ...utils.run_history import PROGRESS, read_progress
from .changes import unwrap


@HOOKS.register_module()
class TrainingProgressHook(Hook):
    """Writes ``work_dir/progress.json``: per epoch seconds, CPU seconds and metrics.

    ``{"parameters": n, "trained_parameters": n, "device": "cuda", "epochs": [{"epoch": 1,
    "train_seconds": s, "train_cpu_seconds": s, "val_seconds": s, "val_cpu_seconds": s, "metrics":
    {...}}, ...]}``; an epoch without validation has no ``val_...`` and no ``metrics``. Times are of
    one pass through the data and of one validation, without saving. CPU seconds include all threads
    of this process and its data loader's workers; on a busy machine they are the fairer measure.

    A resumed training continues the file. An interrupted epoch counts once, with the times of its
    complete run.

    Raises:
        TypeError: if training is not by epoch.
    """

    # Before the checkpoint is saved, so that an epoch that is not in the file is trained again.
    priority = "NORMAL"

    def __init__(self) -> None:
        self._path = Path()
        self._progress: dict[str, Any] = {}
        self._started = (0.0, 0.0)  # wall and CPU seconds at the start of the epoch

    def before_train(self, runner: Runner) -> None:
        """Read an interrupted run's record up to its checkpoint's epoch."""
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise TypeError(
                "TrainingProgressHook counts epochs, but train_cfg trains by iteration "
                f"({type(runner.train_loop).__name__}); set train_cfg.type='EpochBasedTrainLoop'."
            )
        self._path = Path(runner.work_dir) / PROGRESS
        model = unwrap(runner.model)
        sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
        epochs = read_progress(runner.work_dir)["epochs"]
        self._progress = {
            "parameters": sum(size for size, _ in sizes),
            "trained_parameters": sum(size for size, trained in sizes if trained),
            "device": next((p.device.type for p in model.parameters()), "cpu"),
            "epochs": [entry for entry in epochs if entry["epoch"] <= runner.epoch],
        }
        self._write()

    def before_train_epoch(self, runner: Runner) -> None:
        """Take the time."""
        self._started = (time.perf_counter(), cpu_seconds())

    def after_train_epoch(self, runner: Runner) -> None:
        """Record the time of the epoch."""
        self._note(runner.epoch + 1, "train")

    before_val_epoch = before_train_epoch

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Record time and metrics of the validation."""
        if self._progress:  # empty in a validation without training
            self._note(runner.epoch, "val", metrics=dict(metrics or {}))

    def _note(self, epoch: int, what: str, **more: Any) -> None:
        wall, cpu = time.perf_counter() - self._started[0], cpu_seconds() - self._started[1]
        entries = self._progress["epochs"]
        if not entries or entries[-1]["epoch"] != epoch:
            entries.append({"epoch": epoch})
        seconds = {f"{what}_seconds": round(wall, 3), f"{what}_cpu_seconds": round(cpu, 3)}
        entries[-1].update(seconds, **more)
        self._write()

    def _write(self) -> None:
        if is_main_process():
            text = json.dumps(self._progress, indent=1) + "\n"
            write_atomically(self._path, text.encode())


def cpu_seconds() -> float:
    """CPU seconds of this process's threads and of its workers, running or ended."""
    ended = os.times()
    seconds = time.process_time() + ended.children_user + ended.children_system
    for worker in multiprocessing.active_children():
        stat = Path(f"/proc/{worker.pid}/stat")
        try:
            # utime and stime, fields 14 and 15 of proc(5); the name in brackets may hold spaces
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # just ended, or not Linux: only ended workers count
            continue
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds
