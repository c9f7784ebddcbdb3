"""Run jobs in separate processes, to kill them or let them communicate, without slow imports.

`Server` starts this file as a program, which imports everything and then forks for every rank of
every job. A job is a function of `support.jobs`, called with the same arguments in every process,
with torchrun's environment: RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. It is an
ordinary process with its own files, workers and memory; SIGKILL ends it at once.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

TESTS = Path(__file__).parents[1]
SECONDS = 400  # time limit of a job


@dataclass(frozen=True)
class Outcome:
    """Result of a job: exit status, output and return value per process.

    As in subprocess, a code is negative if a signal ended the process.
    """

    codes: list[int]
    printed: list[str]
    results: list[Any]

    @property
    def code(self) -> int:
        """Of the first process."""
        return self.codes[0]

    @property
    def output(self) -> str:
        """Of the first process."""
        return self.printed[0]

    @property
    def killed(self) -> bool:
        """Whether the first process was killed."""
        return self.code == -signal.SIGKILL


class Server:
    """Runs jobs, one at a time.

    Args:
        disk: Folder where a small in-memory disk is mounted for the jobs. Other processes see it at
            `seen(disk)`.
        size: Size of the disk, such as '6m'.
    """

    def __init__(self, disk: Path | None = None, size: str = "") -> None:
        command = [sys.executable, "-m", "support.forks"]
        if disk is not None:
            mount = f"mount -t tmpfs -o size={size} tmpfs {disk} && exec"
            command = ["unshare", "-rm", "sh", "-c", " ".join([mount, *command])]
        path = os.pathsep.join(map(str, (TESTS, TESTS.parent)))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, job: str, folder: Path, world_size: int = 2, **arguments: Any) -> list[Any]:
        """Run a job in every process; return the results.

        Args:
            job: Name of a function in jobs.py.
            folder: Folder for outputs and results.
            world_size: Number of processes.
            arguments: Arguments of the job, as JSON.
        """
        outcome = self.attempt(job, folder, world_size, **arguments)
        assert outcome.codes == [0] * world_size, "\n".join(
            f"--- process {rank}: {code}\n{text[-3000:]}"
            for rank, (code, text) in enumerate(zip(outcome.codes, outcome.printed, strict=True))
        )
        return outcome.results

    def attempt(
        self,
        job: str,
        folder: Path,
        world_size: int = 2,
        kill_after: float | None = None,
        **arguments: Any,
    ) -> Outcome:
        """Run a job that may fail, or kill it some seconds after its start."""
        folder.mkdir(parents=True, exist_ok=True)
        ranks = range(world_size)
        files = [folder / f"rank{rank}.pt" for rank in ranks]
        for file in files:
            file.unlink(missing_ok=True)
        pids = self._ask([job, str(folder), world_size, arguments])
        if kill_after is not None:
            time.sleep(kill_after)
            # Not waited for yet, so the pid cannot be reused.
            os.kill(pids[0], signal.SIGKILL)
        return Outcome(
            self._ask("wait"),
            [(folder / f"rank{rank}.txt").read_text(errors="replace") for rank in ranks],
            [torch.load(file, weights_only=True) if file.exists() else None for file in files],
        )

    def shell(self, command: str) -> None:
        """Run a command in the jobs' mount namespace."""
        code = self._ask(["shell", command])
        assert code == 0, f"{command} ended with {code}"

    def seen(self, path: Path) -> Path:
        """Path by which other processes see a path of the jobs."""
        return Path(f"/proc/{self._process.pid}/root{path}")

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _ask(self, order: Any) -> Any:
        print(json.dumps(order), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, "the server of the processes has died"
        return json.loads(answer)


@pytest.fixture(scope="session")
def processes() -> Iterator[Server]:
    """One server for each worker of pytest-xdist."""
    server = Server()
    yield server
    server.close()


def serve() -> None:
    """The server: fork for every job, report pids, wait, report exit statuses."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # other output goes to stderr
    import torch._dynamo  # noqa: F401 (else the first optimizer imports it)

    from support import jobs
    from support.runs import make_runs_quick

    make_runs_quick()
    pids: list[int] = []
    answer: Any
    for line in sys.stdin:
        order = json.loads(line)
        if order == "wait":
            answer = wait_for(pids)
        elif order[0] == "shell":
            answer = subprocess.run(order[1], shell=True).returncode
        else:
            job, folder, world_size, arguments = order
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            pids = []
            for rank in range(world_size):
                pid = os.fork()
                if pid == 0:
                    place = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world_size)
                    os.environ.update({name: str(value) for name, value in place.items()})
                    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
                    work(getattr(jobs, job), Path(folder, f"rank{rank}"), arguments)  # ends it
                pids.append(pid)
            answer = pids
        print(json.dumps(answer), file=answers, flush=True)


def wait_for(pids: list[int]) -> list[int]:
    """Wait for exit statuses; like torchrun, end the others when one fails."""
    codes: dict[int, int] = {}
    deadline = time.monotonic() + SECONDS
    while len(codes) < len(pids):
        for pid in pids:
            if pid not in codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[pid] = os.waitstatus_to_exitcode(status)
                    if codes[pid]:
                        patience = 0 if codes[pid] < 0 else 10
                        deadline = min(deadline, time.monotonic() + patience)
        if time.monotonic() > deadline:
            for pid in pids:
                if pid not in codes:
                    os.kill(pid, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(0.01)
    return [codes[pid] for pid in pids]


def work(job: Any, file: Path, arguments: dict) -> None:
    """Run one process of a job."""
    code = 1
    try:
        descriptor = os.open(f"{file}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        from fastdetr_mmdet.engine.distributed import cpu_processes

        with cpu_processes():  # as in tools/train.py and tools/test.py
            result = job(**arguments)
        torch.save(result, f"{file}.pt")
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
