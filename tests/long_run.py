"""Check memory and open files of a long training: ``python tests/long_run.py``.

Trains a tiny detector on the embedded dataset in one process, with worker processes, checkpoints
and validation, and prints memory and open files of the process and its workers every 100
iterations. Ends with exit status 1 if, after a warm-up, memory grows faster than LIMIT on average
or files are left open.

"resident" is the minimum resident memory of the last 100 iterations; it varies by some MiB with
memory that the C library keeps. "in use" is allocated memory (glibc only), without free memory and
compiled kernels. By default batches are padded to multiples of 32, so that all their sizes have
come before the warm-up ends; ``--sizes own`` trains as the detectors' configs do and ``--sizes
many`` with images resized at random, see docs/faults.md for the effects of oneDNN and the C
library.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from support.runs import ROOT

from fastdetr_mmdet.datasets.shapes import write_shapes

LIMIT = 4.0  # KiB per iteration; mmengine's log of all losses takes about 0.4
# The warm-up includes the first checkpoint and validation, after 256 iterations.
EVERY, WARM_UP = 100, 500
MIB = 2**20

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
train_cfg = dict(val_interval=2)
default_hooks = dict(
    logger=dict(interval=100),
    checkpoint=dict(interval=2, max_keep_ckpts=2))
"""


# Resizing and padding of the training set for each value of --sizes.
SIZES = {
    "few": dict(model=dict(data_preprocessor=dict(pad_size_divisor=32))),
    "own": {},
    "many": {
        "train_dataloader.batch_size": 4,  # a batch is as large as its largest image
        "train_cfg.val_interval": 1,  # a pass has twice the iterations
        "train_dataloader.dataset.pipeline.2": dict(
            type="RandomResize", scale=[(80, 80), (160, 160)], keep_ratio=True
        ),
    },
}


class Row(NamedTuple):
    """A measurement after some iterations; memory in MiB."""

    iteration: int
    resident: float
    in_use: float
    workers: float
    files: int


class MeasureHook(Hook):
    """Prints and keeps measurements of the process.

    Args:
        stop_after: Iteration at which training stops.
    """

    priority = "LOWEST"

    def __init__(self, stop_after: int) -> None:
        self._stop_after = stop_after
        self._process = psutil.Process()
        self._start = time.monotonic()
        self._least = math.inf
        self._sizes: set[tuple[int, ...]] = set()
        self.rows: list[Row] = []

    def before_train(self, runner):
        """Record the sizes of batches."""
        runner.model.backbone.register_forward_pre_hook(
            lambda module, inputs: self._sizes.add(tuple(inputs[0].shape))
        )

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Measure; print every so often."""
        done = runner.iter + 1
        self._least = min(self._least, self._process.memory_info().rss / MIB)
        if done % EVERY == 0:
            workers = sum(_own_memory(child) for child in self._process.children()) / MIB
            row = Row(done, self._least, _in_use(), workers, self._process.num_fds())
            self.rows.append(row)
            self._least = math.inf
            seconds = time.monotonic() - self._start
            print(
                f"{row.iteration:9d} {row.resident:12.1f} {row.in_use:10.1f} {row.workers:11.1f} "
                f"{row.files:5d} {len(self._sizes):5d} {seconds:7.0f}",
                flush=True,
            )
        if done == self._stop_after:
            raise _Done


class _Done(Exception):
    pass


class _MallocInfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def _in_use() -> float:
    """Allocated MiB; NaN without glibc 2.33 or later."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return math.nan
    mallinfo.restype = _MallocInfo
    info = mallinfo()
    return (info.uordblks + info.hblkhd) / MIB or math.nan  # 0 with another allocator


def _own_memory(process: psutil.Process) -> int:
    """A worker's own memory, without pages shared with its parent."""
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
    parser.add_argument(
        "--sizes",
        choices=SIZES,
        default="few",
        help="of batches: padded to multiples of 32; those of the configs; resized at random",
    )
    args = parser.parse_args(arguments)
    least = WARM_UP + 10 * EVERY  # fewer measurements give a noisy slope
    if args.iterations < least:
        parser.error(f"--iterations must be at least {least}")

    with tempfile.TemporaryDirectory() as folder:
        rows = train(Path(folder), args.iterations, args.workers, args.images, args.sizes)
    verdict = judge(rows)
    print(verdict)
    return 0 if verdict.startswith("flat") else 1


def train(
    folder: Path,
    iterations: int,
    workers: int,
    images: int,
    sizes: str,
    *hooks: Hook,
    val: int = 64,
) -> list[Row]:
    """Train with `val` validation images; return the measurements."""
    write_shapes(folder / "shapes", images, val)
    base = (ROOT / "configs/demo/fast-detr_r18_shapes.py").as_posix()
    (folder / "long.py").write_text(CONFIG.format(base=base, workers=workers))
    cfg = Config.fromfile(folder / "long.py")
    cfg.work_dir = str(folder / "work")
    cfg.merge_from_dict({"data_root": f"{folder}/shapes/", **SIZES[sizes]})
    per_epoch = -(-images // cfg.train_dataloader.batch_size)
    cfg.merge_from_dict({"max_epochs": iterations // per_epoch + 1})
    cfg.log_level = "WARNING"
    runner = Runner.from_cfg(cfg)
    measure = MeasureHook(iterations)
    for hook in (*hooks, measure):
        runner.register_hook(hook)
    print("iteration resident MiB in use MiB workers MiB files sizes seconds")
    try:
        runner.train()
    except _Done:
        pass
    return measure.rows


def judge(rows: list[Row]) -> str:
    """A sentence that begins with "flat" or "growing"."""
    after = [row for row in rows if row.iteration > WARM_UP]
    first, last = after[0], after[-1]
    resident, in_use, workers = (
        f"{what} from {getattr(first, name):.0f} to {getattr(last, name):.0f} MiB, "
        f"{_growth(after, name):.2f} KiB per iteration"
        for name, what in (
            ("resident", "resident memory"),
            ("in_use", "memory in use"),
            ("workers", "all workers together"),
        )
    )
    # nan is not greater
    grows = any(_growth(after, name) > LIMIT for name in ("resident", "in_use", "workers"))
    return (
        f"{'growing' if grows or last.files > first.files else 'flat'}: after iteration "
        f"{first.iteration} {resident}; {in_use}; {workers} (limit {LIMIT:.0f}); open files "
        f"{first.files} to {last.files} (at most {max(row.files for row in after)})."
    )


def _growth(rows: list[Row], name: str) -> float:
    """Slope of the line through the measurements, in KiB per iteration."""
    iterations = np.array([row.iteration for row in rows])
    return np.polyfit(iterations, [getattr(row, name) for row in rows], 1)[0] * 1024


if __name__ == "__main__":
    sys.exit(main())
