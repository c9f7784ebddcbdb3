"""Inject faults into a training run, from within the run."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import resource
import signal
from pathlib import Path

import torch
from mmengine.optim.optimizer import amp_optimizer_wrapper

from fastdetr_mmdet.utils import files as written_files


def install(
    kill_at: int | None = None,
    steps_to: str | None = None,
    full_at: int | None = None,
    limit_at: int | None = None,
    fill_at: int | None = None,
    amp_on_cpu: bool = False,
) -> None:
    """Patch the run's file operations, or its devices.

    Args:
        kill_at: Step of writing or removing files, from 0, at which the process is killed.
        steps_to: File that gets a line before every step: the operation and the file's name.
        full_at: Checkpoint file, from 0, that fails with a full disk after half of it is written.
        limit_at: Checkpoint file from which on the kernel limits files to 100 kB.
        fill_at: Step at which another file fills the folder's disk.
        amp_on_cpu: Let mmengine train with a loss scaler on the CPU, which doubles every third
            step.
    """
    if amp_on_cpu:
        scaler = functools.partial(torch.amp.GradScaler, "cpu", growth_interval=3)
        amp_optimizer_wrapper.GradScaler = scaler
        amp_optimizer_wrapper.is_cuda_available = lambda: True
    steps: list[str] = []
    files: list[str] = []

    def step(what: str, path: str | Path) -> None:
        steps.append(f"{what} {Path(path).name}")
        if steps_to is not None:
            Path(steps_to).write_text("\n".join(steps))
        if len(steps) - 1 == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if len(steps) - 1 == fill_at:
            folder = Path(path) if Path(path).is_dir() else Path(path).parent
            with contextlib.suppress(OSError), open(folder / "filler", "wb", 0) as filler:
                while True:
                    filler.write(bytes(1024))

    class File:
        """The file to write."""

        def __init__(self, path, *args) -> None:
            step("open", path)
            self._path = path
            self._file = open(path, *args)

        def __enter__(self):
            return self

        def __exit__(self, *_) -> None:
            self._file.close()

        def write(self, content: bytes) -> None:
            half = len(content) // 2
            self._file.write(content[:half])
            self._file.flush()
            if ".pth" in self._path.name:
                files.append(self._path.name)
                if len(files) - 1 == full_at:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if len(files) - 1 == limit_at:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
            step("write the second half of", self._path)
            self._file.write(content[half:])

        def flush(self) -> None:
            self._file.flush()
            step("sync", self._path)

        def fileno(self) -> int:
            return self._file.fileno()

    def open_to_write(path, mode="r", *args):
        return File(path, mode, *args) if "w" in mode else open(path, mode, *args)

    def stepping(module, name: str, what: str) -> None:
        function = getattr(module, name)

        def call(path, *args, **kwargs):
            step(what, path)
            return function(path, *args, **kwargs)

        setattr(module, name, call)

    written_files.open = open_to_write
    stepping(os, "replace", "rename")
    stepping(written_files, "_sync_folder", "sync the folder")
    stepping(os, "remove", "remove")
