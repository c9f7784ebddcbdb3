"""Training runs in processes of their own, to be killed; without the seconds that imports take.

`Server` starts this file as a program, which imports everything and then forks itself for every
run. A run is a process like any other: it has its own files, workers and memory, and SIGKILL gives
it no time for anything.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Result:
    """How a run ended: `code` is negative if a signal ended it, as in subprocess."""

    code: int
    output: str
    seconds: float

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


class Server:
    """Starts runs, one at a time.

    Args:
        disk: A folder on which a small disk of its own, in memory, is mounted for the runs. Others
            see it at `seen(disk)`.
        size: Of the disk, as in '6m'.
    """

    def __init__(self, disk: Path | None = None, size: str = "") -> None:
        command = [sys.executable, __file__]
        if disk is not None:
            mount = f"mount -t tmpfs -o size={size} tmpfs {disk} && exec"
            command = ["unshare", "-rm", "sh", "-c", " ".join([mount, *command])]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{TESTS}:{TESTS.parent}",
        }
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._output = tempfile.TemporaryDirectory()

    def run(
        self,
        config: Path,
        work_dir: Path,
        kill_after: float | None = None,
        faults: dict | None = None,
        processes: int = 1,
        **options,
    ) -> Result:
        """Train.

        Args:
            config: File of a config.
            work_dir: Of the run.
            kill_after: Seconds from the start to SIGKILL, unless the run has ended before.
            faults: Arguments for `faults.install`, in the first process.
            processes: That train together; they die with the first.
            options: For --cfg-options; a double underscore stands for a dot. `resume` too.
        """
        output = Path(self._output.name, "output.txt")
        options = {key.replace("__", "."): value for key, value in options.items()}
        pid = self._ask([str(config), str(work_dir), str(output), options, faults, processes])
        start = time.monotonic()
        if kill_after is not None:
            time.sleep(kill_after)
            # Not waited for yet, so the number is this process's even if it has ended.
            os.kill(pid, signal.SIGKILL)
        code = self._ask("wait")
        return Result(
            code, Path(f"{output}.0").read_text(errors="replace"), time.monotonic() - start
        )

    def shell(self, command: str) -> None:
        """Run a command where the runs are."""
        code = self._ask(["shell", command])
        assert code == 0, f"{command} ended with {code}"

    def seen(self, path: Path) -> Path:
        """Where others see what the runs see at a path."""
        return Path(f"/proc/{self._process.pid}/root{path}")

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._output.cleanup()

    def _ask(self, order) -> int:
        print(json.dumps(order), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, "the server of the runs has died"
        return json.loads(answer)


def serve() -> None:
    """The program: fork for every order, report the process, wait for its end, report that."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what others print belongs to the errors
    import torch._dynamo  # noqa: F401 (the first optimizer would)
    from mmdet.utils import register_all_modules
    from support.runs import make_runs_quick

    import fastdetr_mmdet  # noqa: F401

    register_all_modules(init_default_scope=False)
    make_runs_quick()
    pid = 0
    for line in sys.stdin:
        order = json.loads(line)
        if order == "wait":
            _, status = os.waitpid(pid, 0)
            answer = os.waitstatus_to_exitcode(status)
        elif order[0] == "shell":
            answer = subprocess.run(order[1], shell=True).returncode
        else:
            pid = os.fork()
            if pid == 0:
                train(*order)  # does not return
            answer = pid
        print(json.dumps(answer), file=answers, flush=True)


def train(
    config: str, work_dir: str, output: str, options: dict, faults: dict | None, processes: int
) -> None:
    """One run, as mmdet's tools/train.py would do it."""
    code = 1
    try:
        rank = join_processes(output, processes) if processes > 1 else 0
        descriptor = os.open(f"{output}.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        import numpy as np
        from mmengine.config import Config
        from mmengine.registry import RUNNERS
        from mmengine.runner import Runner

        if faults is not None and rank == 0:
            import faults as faults_module

            faults_module.install(**faults)
        np.random.seed()  # noqa: NPY002 (from which mmengine draws a seed if the config has none)
        cfg = Config.fromfile(config)
        cfg.work_dir = work_dir
        cfg.merge_from_dict(options)
        if processes > 1:
            cfg.launcher = "pytorch"
            cfg.model_wrapper_cfg = dict(device_ids=None)  # on the CPU
        runner = RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
        runner.train()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def join_processes(output: str, count: int) -> int:
    """Fork the others, and let all of them meet; return this one's number."""
    import torch.distributed

    Path(f"{output}.meeting").unlink(missing_ok=True)
    rank = next((number for number in range(1, count) if os.fork() == 0), 0)
    if rank:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: die with the first
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count))
    meeting = f"file://{output}.meeting"
    torch.distributed.init_process_group("gloo", meeting, rank=rank, world_size=count)
    return rank


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    serve()
