"""Trains several runs, some side by side; one that fails does not keep the others."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence

from .results import last_ap
from .run import Run

_POLL_SECONDS = 0.2
_END_SECONDS = 20.0


def train_all(
    runs: Sequence[Run], jobs: int = 1, tell: Callable[[str], None] = print
) -> dict[Run, str]:
    """Train what is not finished yet.

    If this process is interrupted or told to end, so are the trainings; the same call continues
    them. If it is killed, they go on by themselves, and are not started twice.

    Args:
        runs: In the order in which they are to be started.
        jobs: How many at a time.
        tell: Is given a line about each run that starts and ends.

    Returns:
        The runs that failed, each with the reason: a sentence and the end of its log.
    """
    waiting, running, failed = list(runs), dict[subprocess.Popen, Run](), dict[Run, str]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.pop(0)
                try:
                    if run.finished:
                        tell(f"{run}: finished before, AP {last_ap(run):.3f}")
                        continue
                    saved = run.saved_epoch
                    process = run.start()
                except (RuntimeError, ValueError, OSError) as error:
                    failed[run] = str(error)
                    tell(f"{run}: not started. {error}")
                    continue
                running[process] = run
                how = "started" if saved is None else f"continued from epoch {saved}"
                tell(f"{run}: {how} as process {process.pid}, log in {run.log}")
            for process in [process for process in running if process.poll() is not None]:
                run = running.pop(process)
                if process.returncode == 0 and run.finished:
                    tell(f"{run}: finished, AP {last_ap(run):.3f}")
                else:
                    failed[run] = _why(run, process.returncode)
                    tell(failed[run])
            if running:
                time.sleep(_POLL_SECONDS)
    finally:
        _end(running)
    return failed


def _why(run: Run, status: int) -> str:
    ended = f"was ended by signal {-status}" if status < 0 else f"ended with exit status {status}"
    return f"{run}: training {ended}. The end of {run.log}:\n{run.last_lines()}"


def _end(running: dict[subprocess.Popen, Run]) -> None:
    """End what still trains; what has been saved is continued by the next call."""
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
