"""Count the host's work in a training step: operators, kernel launches, waits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

# CUDA runtime calls in which the host waits for the device.
_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
_LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernelEx")


def count(step: Callable[[], object], device: str) -> dict[str, int]:
    """Count one call with the profiler, after a warm-up call."""
    step()
    activities = [ProfilerActivity.CPU]
    if device.startswith("cuda"):
        activities.append(ProfilerActivity.CUDA)
        torch.cuda.synchronize()
    with profile(activities=activities) as profiler:
        step()
    counts = tally(profiler.events())
    if device.startswith("cuda"):
        counts["waits"] -= 1  # the profiler's own
    return counts


def tally(events: Iterable[Any]) -> dict[str, int]:
    """Count top-level operators, launches and waits among events."""
    counts = {"operators": 0, "launches": 0, "waits": 0}
    for event in events:
        if event.name.startswith("aten::"):
            parent = event.cpu_parent
            counts["operators"] += parent is None or not parent.name.startswith("aten::")
        counts["launches"] += event.name in _LAUNCHES
        counts["waits"] += event.name in _WAITS
    return counts
