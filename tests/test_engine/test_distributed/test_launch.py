"""mmengine's launchers work on CPUs."""

import os
import re
import subprocess

import pytest
import torch
from mmengine.dist import utils as launchers
from mmengine.model.wrappers import MMDistributedDataParallel
from support.runs import BIN, ROOT, log_rows

from fastdetr_mmdet.engine import distributed
from fastdetr_mmdet.engine.distributed import cpu_processes


@pytest.mark.parametrize("launcher", ["pytorch", "slurm", "mpi"])
def test_launchers(processes, tmp_path, launcher):
    assert processes.run("launch", tmp_path, launcher=launcher) == [[0, 2, 3.0], [1, 2, 3.0]]


@pytest.mark.smoke
def test_mim_starts_slurm_jobs(tmp_path):
    """Up to the call of srun, with the command of docs/scaling.md."""
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\necho "srun $@"\n')
    srun.chmod(0o755)
    (command,) = re.findall(
        r"^\| slurm \| `(.*?)` \|$", (ROOT / "docs/scaling.md").read_text(), re.MULTILINE
    )
    program, *arguments = command.split()
    config = ROOT / "configs/conditional_detr/conditional-detr_r50_8xb2-50e_coco.py"
    result = subprocess.run(
        [BIN / program, *(str(config) if word == "CONFIG" else word for word in arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("srun ")]
    assert "-p PART --gres=gpu:8 --ntasks=16 --ntasks-per-node=8 " in line
    assert re.search(rf"tools/train\.py {re.escape(str(config))} --launcher slurm", line)


@pytest.mark.skipif(torch.cuda.is_available(), reason="with GPUs NCCL works")
def test_nccl_without_gpus(monkeypatch):
    """There is no silent fallback to gloo: this may be a node whose driver failed."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "0")
    with cpu_processes(), pytest.raises(RuntimeError, match=r"'nccl'.*dist_cfg\.backend=gloo"):
        launchers.init_dist("pytorch", backend="nccl")
    assert not torch.distributed.is_initialized()


def replaced() -> list:
    inits = [getattr(launchers, f"_init_dist_{name}") for name in ("pytorch", "slurm", "mpi")]
    return [*inits, MMDistributedDataParallel.__init__, torch.cuda.set_device]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_is_replaced_is_taken_back(device, monkeypatch):
    """With GPUs nothing is replaced."""
    monkeypatch.setattr(distributed, "get_device", lambda: device)
    before = replaced()
    with pytest.raises(KeyError), cpu_processes():
        assert (replaced() == before) == (device == "cuda")
        raise KeyError
    assert replaced() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "start",
    [
        ("torchrun", "--nproc_per_node=2", "--master_port=0", ROOT / "tools/train.py"),
        ("mim", "train", "fastdetr_mmdet", "--gpus=2"),
    ],
    ids=["torchrun", "mim"],
)
def test_commands(start, tiny_config_file, shapes, tmp_path):
    """The documented commands, on CPUs."""
    options = [f"data_root={shapes}/", "env_cfg.dist_cfg.backend=gloo", "train_cfg.max_epochs=1"]
    arguments = [tiny_config_file, "--launcher", "pytorch", "--work-dir", tmp_path / "work"]
    program, *rest = start
    result = subprocess.run(
        [BIN / program, *rest, *arguments, "--cfg-options", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stdout[-6000:]
    assert len(log_rows(tmp_path / "work")) == 2  # 16 images, 2 processes x 4
