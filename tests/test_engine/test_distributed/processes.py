"""Work in several processes that talk to each other, without the seconds that imports take.

`Processes` starts this file as a program, which imports everything and then forks itself once for
every rank of every job. A job is a function of `jobs.py`, called with the same arguments in every
process, in the environment that torchrun makes: RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
SECONDS = 400  # after which a job is ended, however slow the machine is


@dataclass(frozen=True)
class Outcome:
    """How a job ended: per process its exit status, what it printed and what it returned."""

    codes: list[int]
    printed: list[str]
    results: list[Any]


class Processes:
    """Runs jobs, one at a time."""

    def __init__(self) -> None:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{HERE}:{HERE.parents[1]}:{HERE.parents[2]}",
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(self, job: str, folder: Path, world_size: int = 2, **arguments: Any) -> list[Any]:
        """Run a job in every process; return what each returned.

        Args:
            job: Name of a function in jobs.py.
            folder: For what the processes print and return.
            world_size: How many processes.
            arguments: For the job; JSON.
        """
        outcome = self.attempt(job, folder, world_size, **arguments)
        assert outcome.codes == [0] * world_size, "\n".join(
            f"--- process {rank}: {code}\n{text[-3000:]}"
            for rank, (code, text) in enumerate(zip(outcome.codes, outcome.printed, strict=True))
        )
        return outcome.results

    def attempt(self, job: str, folder: Path, world_size: int = 2, **arguments: Any) -> Outcome:
        """Run a job that may fail."""
        folder.mkdir(parents=True, exist_ok=True)
        order = json.dumps([job, str(folder), world_size, arguments])
        print(order, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, "the server of the processes has died"
        ranks = range(world_size)
        files = [folder / f"rank{rank}.pt" for rank in ranks]
        return Outcome(
            json.loads(answer),
            [(folder / f"rank{rank}.txt").read_text(errors="replace") for rank in ranks],
            [torch.load(file, weights_only=True) if file.exists() else None for file in files],
        )

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=60)


def serve() -> None:
    """The program: fork for every order, wait for the ends, report the exit statuses."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what others print belongs to the errors
    import jobs  # noqa: F401
    import torch._dynamo  # noqa: F401 (the first optimizer would)
    from support.runs import make_runs_quick

    make_runs_quick()
    for line in sys.stdin:
        job, folder, world_size, arguments = json.loads(line)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        pids = []
        for rank in range(world_size):
            pid = os.fork()
            if pid == 0:
                work(job, Path(folder), rank, world_size, port, arguments)  # does not return
            pids.append(pid)
        print(json.dumps(wait_for(pids)), file=answers, flush=True)


def wait_for(pids: list[int]) -> list[int]:
    """Exit statuses; as torchrun does, the others are ended when one has failed."""
    codes: dict[int, int] = {}
    deadline = time.monotonic() + SECONDS
    failed_at = None
    while len(codes) < len(pids):
        for pid in pids:
            if pid not in codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[pid] = os.waitstatus_to_exitcode(status)
                    if codes[pid] and failed_at is None:
                        failed_at = time.monotonic()
        now = time.monotonic()
        if now > deadline or (failed_at is not None and now > failed_at + 10):
            for pid in pids:
                if pid not in codes:
                    os.kill(pid, signal.SIGKILL)
            deadline, failed_at = float("inf"), None
        time.sleep(0.01)
    return [codes[pid] for pid in pids]


def work(job: str, folder: Path, rank: int, world_size: int, port: int, arguments: dict) -> None:
    """One process of a job."""
    code = 1
    try:
        descriptor = os.open(folder / f"rank{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(world_size),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        import jobs

        from fastdetr_mmdet.engine.distributed import cpu_processes

        with cpu_processes():  # as our tools/train.py and tools/test.py
            result = getattr(jobs, job)(**arguments)
        torch.save(result, folder / f"rank{rank}.pt")
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
