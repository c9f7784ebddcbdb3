"""Trainings of a comparison: folders, start and progress."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from ..engine.mmdet_tools import find_mim
from ..utils.cli import UsageError, UserError
from ..utils.config import flatten
from ..utils.run_history import RunHistory

METRIC = "coco/bbox_mAP"
_CONFIG = re.compile(r"(?P<name>.+)_seed_(?P<seed>-?\d+)\.py")
# Keys that may differ when a run is made longer.
_LENGTH = {"max_epochs", "train_cfg.max_epochs"}
_POLL_SECONDS, _END_SECONDS = 0.2, 20.0


@dataclass(frozen=True)
class Run:
    """A training of a comparison: one config with one seed.

    Args:
        name: Name of the config, without folder and suffix.
        seed: Seed of the run.
        epochs: Number of epochs.
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
        """Path of the config on the common budget."""
        return self.out / "configs" / f"{self.name}_seed_{self.seed}.py"

    @property
    def work_dir(self) -> Path:
        """Work directory of mmengine's runner."""
        return self.out / self.name / f"seed_{self.seed}"

    @property
    def log(self) -> Path:
        """Output of the training."""
        return self.work_dir / "train.log"

    @property
    def final_ap(self) -> float | None:
        """AP of the last epoch; None if it is not validated yet."""
        epochs = RunHistory.read(self.work_dir).epochs
        done = bool(epochs) and epochs[-1].number >= self.epochs
        return epochs[-1].metrics.get(METRIC) if done else None

    def prepare(self, cfg: Config) -> None:
        """Write the config to train from.

        A run may be extended if its learning rate does not depend on the number of epochs.

        Raises:
            UsageError: if the folder holds a run of another config.
        """
        if self.config.is_file() and self.work_dir.is_dir():
            before = flatten(Config.fromfile(self.config, import_custom_modules=False))
            changed = sorted({key for key, _ in before.items() ^ flatten(cfg).items()})
            longer = cfg.train_cfg.max_epochs >= int(before["train_cfg.max_epochs"])
            if changed and not (longer and set(changed) <= _LENGTH):
                raise UsageError(
                    f"{self.work_dir} holds a run of another config or budget (different: "
                    f"{', '.join(changed[:4])}). Give another --out, or remove that folder to "
                    "train again."
                )
        self.config.parent.mkdir(parents=True, exist_ok=True)
        cfg.dump(str(self.config))

    def start(self, gpu: str | None = None) -> subprocess.Popen:
        """Start or continue the training by ``mim train`` in its own process group.

        Raises:
            UserError: if another process trains this run.
        """
        pid_file = self.work_dir / "train.pid"
        text = pid_file.read_text().strip() if pid_file.is_file() else ""
        if text.isdecimal() and _is_alive(int(text)):
            raise UserError(
                f"{self}: {self.work_dir} is in use by process {text}. Wait for it or end it. If "
                f"that process is another program, remove {pid_file}."
            )
        self.work_dir.mkdir(parents=True, exist_ok=True)
        command = [find_mim(), "train", "fastdetr_mmdet", str(self.config)]
        command += ["--work-dir", str(self.work_dir), "--resume"]
        # More threads than cores slow down small models and parallel runs.
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        with self.log.open("ab") as log:
            streams: dict[str, Any] = dict(
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
            process = subprocess.Popen(command, env=environment, start_new_session=True, **streams)
        pid_file.write_text(f"{process.pid}\n")
        return process

    def saved_epoch(self) -> str | None:
        """Epoch of the last checkpoint."""
        pointer = self.work_dir / "last_checkpoint"
        found = pointer.is_file() and re.search(r"epoch_(\d+)\.pth\s*$", pointer.read_text())
        return found[1] if found else None

    def last_lines(self, count: int = 12) -> str:
        """End of the training's output, without mim's traceback."""
        text = self.log.read_text(errors="replace") if self.log.is_file() else ""
        before, _, last = text.rpartition("Traceback (most recent call last):\n")
        if "subprocess.CalledProcessError: " in last:
            text = before
        lines = [line for line in text.splitlines() if line.strip()]
        return "\n".join(lines[-count:]) or "(nothing)"


def discover_runs(
    out: Path, names: Sequence[str], seeds: Sequence[int] | None, epochs: int | None
) -> tuple[list[Run], list[str]]:
    """Find the runs below a folder of a comparison, seed by seed.

    Args:
        out: The comparison's folder.
        names: Names of configs, in order; empty: all, in the order of their start.
        seeds: Seeds to select; None: all.
        epochs: Maximum number of epochs; None: as planned for the runs.

    Returns:
        The runs, and notes on runs that are shown in part.

    Raises:
        UsageError: if no run is selected.
    """
    files = sorted((out / "configs").glob("*.py"), key=lambda path: path.stat().st_mtime_ns)
    matches = {path: match for path in files if (match := _CONFIG.fullmatch(path.name))}
    found = {(match["name"], int(match["seed"])): path for path, match in matches.items()}
    known = list(dict.fromkeys(name for name, _ in found))
    all_seeds = sorted({seed for _, seed in found})
    chosen = [(n, s) for s in seeds or all_seeds for n in names or known if (n, s) in found]
    if not known:
        raise UsageError(f"{out} holds no runs of a comparison. Give its --out.")
    if not chosen or not set(names) <= set(known):
        has = f"{', '.join(known)} with seeds {', '.join(map(str, all_seeds))}"
        raise UsageError(f"{out} holds no such runs; it has {has}.")
    runs, notes = [], []
    for name, seed in chosen:
        config = Config.fromfile(found[name, seed], import_custom_modules=False)
        planned = int(config.train_cfg.max_epochs)
        runs.append(Run(name, seed, min(epochs or planned, planned), out))
        if runs[-1].epochs < planned:
            notes.append(f"{name}, seed {seed}: only {epochs} of {planned} epochs are shown")
    return runs, notes


def train_all(
    runs: Sequence[Run], jobs: int = 1, tell: Callable[[str], None] = print
) -> dict[Run, str]:
    """Train all unfinished runs; a failed run does not stop the others.

    If this process is interrupted or terminated, the trainings end too, and the same call continues
    them. If it is killed, they go on, and are not started twice.

    Args:
        runs: Runs, in the order of their start.
        jobs: Number of parallel runs; each sees one GPU, if there are any.
        tell: Called with a line when a run starts or ends.

    Returns:
        Failed runs with the reason: a sentence and the end of the log.
    """
    gpus, failed = visible_gpus(), {}
    waiting, running = list(runs), dict[int, tuple[subprocess.Popen, Run]]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                run, place = waiting.pop(0), next(n for n in range(jobs) if n not in running)
                if run.final_ap is not None:
                    tell(f"{run}: finished before, AP {run.final_ap:.3f}")
                    continue
                saved = run.saved_epoch()
                try:
                    process = run.start(gpus[place % len(gpus)] if gpus else None)
                except (UserError, OSError) as error:
                    failed[run] = str(error)
                    tell(f"{run}: not started. {error}")
                    continue
                running[place] = process, run
                how = f"continued from epoch {saved}" if saved else "started"
                tell(f"{run}: {how} as process {process.pid}, log in {run.log}")
            for place, (process, run) in list(running.items()):
                status = process.poll()
                if status is None:
                    continue
                del running[place]
                said = f"{run}: finished, AP {run.final_ap or 0:.3f}"
                if status or run.final_ap is None:
                    said = failed[run] = (
                        f"{run}: training failed with exit status {status}. The end of "
                        f"{run.log}:\n{run.last_lines()}"
                    )
                tell(said)
            if running:
                time.sleep(_POLL_SECONDS)
    finally:
        for process, _ in running.values():
            end(process)
    return failed


def visible_gpus() -> list[str]:
    """GPUs that this process may use, as names for CUDA_VISIBLE_DEVICES."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def end(process: subprocess.Popen) -> None:
    """End a training and its child processes; the next call continues from its checkpoint."""
    for name in ("SIGTERM", "SIGKILL"):
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, getattr(signal, name))
        else:
            process.kill()
        deadline = time.monotonic() + _END_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None and not _is_alive(process.pid):
                return
            time.sleep(_POLL_SECONDS / 4)


def _is_alive(group: int) -> bool:
    """Whether a process group has a process; never on Windows, which has no groups."""
    try:
        os.killpg(group, 0)
    except (OSError, AttributeError):
        return False
    return True
