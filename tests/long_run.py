"""Whether a long training keeps its memory and its open files: ``python tests/long_run.py``.

Trains a tiny detector on the embedded data set in one process, with worker processes, checkpoints
and validation, and prints the resident memory of the training process and of its workers and the
number of open files every 100 iterations. Ends with exit status 1 if, after a warm-up, memory grows
faster than LIMIT on average or files are left open.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from support.runs import ROOT

from fastdetr_mmdet.datasets.shapes import write_shapes

LIMIT = 4.0  # KiB per iteration; mmengine's log of all losses takes about 0.4
EVERY, WARM_UP = 100, 500

CONFIG = """\
_base_ = '{base}'

model = dict(
    num_queries=20,
    backbone=dict(base_channels=8, stem_channels=8),
    neck=dict(in_channels=[32, 64], out_channels=32),
    transformer=dict(
        embed_dims=32,
        decoder=dict(num_layers=2, num_heads=4, feedforward_channels=64)))
train_dataloader = dict(num_workers={workers}, persistent_workers={workers} > 0)
val_dataloader = dict(num_workers={workers}, persistent_workers={workers} > 0)
train_cfg = dict(val_interval=4)
default_hooks = dict(
    logger=dict(interval=100),
    checkpoint=dict(_delete_=True, type='AtomicCheckpointHook', interval=2, max_keep_ckpts=2))
"""


class MeasureHook(Hook):
    """Prints and keeps what the process holds.

    Args:
        stop_after: Iterations; the process is asked to end by then.
    """

    priority = "LOWEST"

    def __init__(self, stop_after: int) -> None:
        self._stop_after = stop_after
        self._process = psutil.Process()
        self._start = time.monotonic()
        self.rows: list[tuple[int, float, float, int]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        done = runner.iter + 1
        if done % EVERY == 0:
            own = self._process.memory_info().rss / 2**20
            workers = sum(_own_memory(child) for child in self._process.children()) / 2**20
            files = self._process.num_fds()
            self.rows.append((done, own, workers, files))
            seconds = time.monotonic() - self._start
            print(f"{done:8d} {own:10.1f} {workers:10.1f} {files:6d} {seconds:8.0f}", flush=True)
        if done == self._stop_after:
            raise _Done


class _Done(Exception):
    pass


def _own_memory(process: psutil.Process) -> int:
    """What a worker holds for itself, without what it shares with the process it comes from."""
    try:
        return process.memory_full_info().uss
    except psutil.NoSuchProcess:
        return 0


def main(arguments: list[str] | None = None) -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2, help="processes that load images")
    parser.add_argument("--images", type=int, default=1024, help="of the training set")
    args = parser.parse_args(arguments)
    if args.iterations < WARM_UP + 3 * EVERY:
        parser.error(f"--iterations must be at least {WARM_UP + 3 * EVERY}")

    with tempfile.TemporaryDirectory() as folder:
        rows = train(Path(folder), args.iterations, args.workers, args.images)
    verdict = judge(rows)
    print(verdict)
    return 0 if verdict.startswith("flat") else 1


def train(folder: Path, iterations: int, workers: int, images: int) -> list[tuple]:
    """Train and return a row of measurements for every 100 iterations."""
    write_shapes(folder / "shapes", images, 64)
    base = (ROOT / "configs/demo/fast-detr_r18_shapes.py").as_posix()
    (folder / "long.py").write_text(CONFIG.format(base=base, workers=workers))
    cfg = Config.fromfile(folder / "long.py")
    cfg.work_dir = str(folder / "work")
    per_epoch = -(-images // cfg.train_dataloader.batch_size)
    epochs = iterations // per_epoch + 1
    cfg.merge_from_dict({"data_root": f"{folder}/shapes/", "max_epochs": epochs})
    # saved like any other checkpoint, not after the last epoch alone
    cfg.default_hooks.checkpoint.interval = 2
    cfg.log_level = "WARNING"
    runner = Runner.from_cfg(cfg)
    measure = MeasureHook(iterations)
    runner.register_hook(measure)
    print("iteration  own MiB  workers MiB  files  seconds")
    try:
        runner.train()
    except _Done:
        pass
    return measure.rows


def judge(rows: list[tuple]) -> str:
    """A sentence that begins with "flat" or "growing"."""
    after = np.array([row for row in rows if row[0] > WARM_UP])
    slopes = [np.polyfit(after[:, 0], after[:, column], 1)[0] * 1024 for column in (1, 2)]
    files = after[:, 3]
    grows = max(slopes) > LIMIT or files[-1] > files[0]
    return (
        f"{'growing' if grows else 'flat'}: after {WARM_UP} iterations memory grows by "
        f"{slopes[0]:.2f} KiB per iteration in the training process and {slopes[1]:.2f} in all "
        f"workers together (limit {LIMIT:.0f}), from {after[0, 1]:.0f} to {after[-1, 1]:.0f} MiB "
        f"and {after[0, 2]:.0f} to {after[-1, 2]:.0f} MiB; open files {files[0]:.0f} to "
        f"{files[-1]:.0f} (at most {files.max():.0f})."
    )


if __name__ == "__main__":
    sys.exit(main())
