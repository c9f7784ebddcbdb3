"""The run that tests interrupt, and its uninterrupted result."""

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.forks import Outcome, Server
from support.runs import once

# The tiny run with random dropout, augmentation in workers and order of images. It keeps one
# checkpoint, so there is no fallback.
CONFIG = """\
_base_ = '{base}'

model = dict(transformer=dict(decoder=dict(dropout=0.2)))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackDetInputs'),
]
data_root = '{shapes}/'
train_dataloader = dict(
    num_workers=1,
    persistent_workers=True,
    dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(batch_size=8, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=3)
log_processor = dict(window_size=1)  # log each loss itself, not a mean
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1, save_best='auto'))
"""


@pytest.fixture(scope="session")
def config(tmp_path_factory, tiny_config_file, shapes) -> Path:
    """A config file."""

    def make(folder: Path) -> None:
        text = CONFIG.format(base=tiny_config_file.as_posix(), shapes=shapes.as_posix())
        (folder / "faults.py").write_text(text)

    return once(tmp_path_factory, "fault_config", make) / "faults.py"


@dataclass(frozen=True)
class Runs:
    """Trainings in processes of a server, one at a time, with a folder for outputs."""

    processes: Server
    folder: Path

    def train(
        self, config: Path, work_dir: Path, kill_after=None, faults=None, processes=1, **options
    ) -> Outcome:
        """Train.

        Args:
            config: Config file.
            work_dir: Work directory of the run.
            kill_after: Seconds until SIGKILL, if the run has not ended.
            faults: Arguments of `faults.install` in the first process.
            processes: Number of processes, which die with the first.
            options: As for --cfg-options, with a double underscore for a dot; also `resume`.
        """
        options = {key.replace("__", "."): value for key, value in options.items()}
        job = dict(config=str(config), work_dir=str(work_dir), options=options, faults=faults)
        folder = self.folder
        return self.processes.attempt("train_with_faults", folder, processes, kill_after, **job)


@pytest.fixture(scope="session")
def server(tmp_path_factory, processes) -> Runs:
    """Trainings in processes that can be killed."""
    return Runs(processes, tmp_path_factory.mktemp("output"))


@pytest.fixture(scope="session")
def whole(tmp_path_factory, server, config) -> Path:
    """Work directory of an uninterrupted run."""

    def make(folder: Path) -> None:
        start = time.monotonic()
        result = server.train(config, folder, faults=dict(steps_to=str(folder / "steps.txt")))
        assert result.code == 0, result.output[-4000:]
        (folder / "seconds.txt").write_text(str(time.monotonic() - start))

    return once(tmp_path_factory, "whole", make)


@pytest.fixture
def disk(tmp_path):
    """Runs on a disk of 6 MiB, with room for one checkpoint of 3 MiB."""
    allowed = subprocess.run(["unshare", "-rm", "true"], capture_output=True)
    if allowed.returncode:
        pytest.skip("this machine lets nobody mount a disk of his own")
    folder = tmp_path / "disk"
    folder.mkdir()
    server = Server(folder, "6m")
    train = Runs(server, tmp_path / "output").train
    yield SimpleNamespace(folder=folder, train=train, seen=server.seen, shell=server.shell)
    server.close()
