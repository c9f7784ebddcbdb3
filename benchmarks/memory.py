"""Measure peak memory of a training step in a new process.

On CUDA, torch's peak of allocated memory; on the CPU, the largest growth of resident memory since
before the model was built: with weights and optimizer, without libraries.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

_MIB = 2**20


def measure(
    name: str, whose: str, batch: int, size: tuple[int, int], device: str, dtype: str, threads: int
) -> float:
    """MiB at the peak of a training step after the first one, measured in a new process."""
    command = [sys.executable, "-m", "benchmarks.memory", name, whose]
    command += ["--batch", str(batch), "--image-size", *map(str, size)]
    command += ["--device", device, "--dtype", dtype, "--threads", str(threads)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1]
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def _resident(what: str) -> int:
    """Bytes of ``VmRSS`` (now) or ``VmHWM`` (peak since the last reset)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {what}: memory on the CPU is measured on Linux only.")


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("whose", choices=["ours", "mmdet"])
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--image-size", type=int, nargs=2, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()

    import torch

    from .batches import make_batch
    from .cases import build
    from .work import training_step

    torch.set_num_threads(args.threads)
    on_cuda = args.device.startswith("cuda")
    batch = make_batch(args.batch, tuple(args.image_size), device=args.device)
    before = 0 if on_cuda else _resident("VmRSS")
    side = build(args.name, args.whose)
    side.model.to(args.device)
    step = training_step(side, batch, args.device, args.dtype)
    step()  # allocates the optimizer's state
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
        step()
        peak = torch.cuda.max_memory_allocated()
    else:
        Path(f"/proc/{os.getpid()}/clear_refs").write_text("5")  # resets VmHWM
        step()
        peak = _resident("VmHWM") - before
    print(peak / _MIB)


if __name__ == "__main__":
    _main()
