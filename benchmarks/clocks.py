"""Time two functions in turns, so that the machine's load affects both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of every round of both functions."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """Ratio of the first to the second function, per round."""
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)]

    def row(self, unit: float = 1e3, name: str = "ms") -> dict[str, float]:
        """Medians in milliseconds (or another unit), and median, minimum and maximum ratio."""
        return {
            f"ours_{name}": round(statistics.median(self.ours) * unit, 3),
            f"theirs_{name}": round(statistics.median(self.theirs) * unit, 3),
            "ratio_median": round(statistics.median(self.ratios), 4),
            "ratio_min": round(min(self.ratios), 4),
            "ratio_max": round(max(self.ratios), 4),
        }


def alternate(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    rounds: int,
    device: str = "cpu",
    least_seconds: float = 0.2,
) -> Timing:
    """Time both functions in every round, in alternating order.

    Each has two warm-up calls; short functions are repeated within a round for at least
    ``least_seconds``.
    """
    calls = [ours, theirs]
    repeats = []
    for call in calls:
        call()
        repeats.append(max(1, round(least_seconds / seconds(call, 1, device))))
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds):
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            times[side].append(seconds(calls[side], repeats[side], device))
    return Timing(tuple(times[0]), tuple(times[1]))


def seconds(call: Callable[[], object], repeats: int, device: str) -> float:
    """Mean wall-clock seconds of a call; waits for the device."""
    _wait(device)
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    _wait(device)
    return (time.perf_counter() - started) / repeats


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
