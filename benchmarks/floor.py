"""Estimate the minimum time for a model's matrix products.

FLOPs of matrix products and convolutions divided by this machine's rate for large matrices; page
faults and kernel time; and operators by time, from a profile.
"""

from __future__ import annotations

import resource
import time

import torch
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from .batches import make_batch
from .cases import CASES, build_pair
from .command_line import parser, quiet
from .compare import beside
from .work import inference, training_step

_WORK = {"inference": inference, "train": training_step}


def matmul_rate(device: str = "cpu", size: int = 2048) -> float:
    """Best FLOP/s of several large float32 products."""
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        started = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def main() -> None:
    """Print FLOPs, minimum time and profile of one model, this package's and mmdet's."""
    options = parser(__file__, __doc__)
    add = options.add_argument
    add("model", choices=list(CASES))
    add("--what", choices=list(_WORK), default="inference", help="work to measure")
    add("--batch", type=int, default=2, help="images")
    add("--image-size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"), help="pixels")
    add("--threads", type=int, default=2, help="CPU threads")
    add("--rows", type=int, default=12, help="rows of the profile")
    args = options.parse_args()
    quiet()
    torch.set_num_threads(args.threads)
    rate = matmul_rate()
    print(f"matrix products: {rate / 1e9:.0f} GFLOP/s with {args.threads} threads\n")
    names = ("this package", beside(args.model))
    for whose, side in zip(names, build_pair(args.model), strict=True):
        call = _WORK[args.what](side, make_batch(args.batch, tuple(args.image_size)), "cpu", "fp32")
        call()
        # The counter fails on parameters that require a gradient in inference.
        if args.what == "inference":
            side.model.requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            call()
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        call()
        took = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_SELF)
        with profile() as profiler:
            call()
        least = counter.get_total_flops() / rate
        print(
            f"{whose}: {counter.get_total_flops() / 1e9:.0f} GFLOP, floor {least * 1e3:.0f} ms, "
            f"took {took * 1e3:.0f} ms; {after.ru_minflt - before.ru_minflt} page faults, "
            f"{(after.ru_stime - before.ru_stime) * 1e3:.0f} ms of a thread in the kernel\n"
        )
        averages = sorted(profiler.key_averages(), key=lambda e: -e.self_cpu_time_total)
        total = sum(e.self_cpu_time_total for e in averages)
        for event in averages[: args.rows]:
            print(f"  {event.self_cpu_time_total / total:6.1%}  {event.count:6d}  {event.key}")
        print()


if __name__ == "__main__":
    main()
