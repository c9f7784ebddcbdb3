"""Record time and metrics of each epoch, also across interruptions."""

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
    {...}}, ...]}``; an epoch without validation has no ``val_...`` and no ``metrics``. Seconds are
    those of one pass through the data and of one validation, without saving. CPU seconds are those
    of all threads of this process and of its data loader's workers; on a busy machine they are the
    fairer measure, and a process that is halted adds none.

    A resumed training goes on with the file. An epoch that an interruption cut short counts once,
    as it was when it was trained to its end.

    Raises:
        TypeError: if training is not by epoch.
    """

    # Before the checkpoint is saved: an epoch that is not in the file will then be trained again.
    priority = "NORMAL"

    def __init__(self) -> None:
        self._path = Path()
        self._progress: dict[str, Any] = {}
        self._started = (0.0, 0.0)  # wall-clock and CPU seconds when an epoch or validation began

    def before_train(self, runner: Runner) -> None:
        """Read the record of an interrupted run up to the epoch of its checkpoint."""
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

    def before_val_epoch(self, runner: Runner) -> None:
        """Take the time."""
        self._started = (time.perf_counter(), cpu_seconds())

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Record time and metrics of the validation."""
        if self._progress:  # not when validating without training
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
    """CPU seconds of this process's threads and of its workers, dead or alive."""
    ended = os.times()
    seconds = time.process_time() + ended.children_user + ended.children_system
    for worker in multiprocessing.active_children():
        stat = Path(f"/proc/{worker.pid}/stat")
        try:
            # after the name, which is in brackets and may hold spaces; fields 14 and 15 in proc(5)
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended, or this is not Linux: only ended workers count
            continue
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds
