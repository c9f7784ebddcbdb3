"""Small training runs and mmdet's tools, for end-to-end tests.

Slow fixtures are made once per test session, by the first worker.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from filelock import FileLock  # torch requires it
from mmengine.config import Config, config
from mmengine.runner import Runner
from yapf.yapflib import yapf_api

from fastdetr_mmdet import FastDETR
from fastdetr_mmdet.datasets.shapes import write_shapes
from fastdetr_mmdet.engine.mmdet_tools import find_script

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TRAIN_IMAGES, VAL_IMAGES, BATCH_SIZE = 16, 8, 4
ITERS = TRAIN_IMAGES // BATCH_SIZE
CLASSES = ("disc", "square", "triangle", "star", "cross", "ring")

# A user's config: a smaller demo, with one second per epoch, and reproducible because it has
# neither random augmentation nor dropout.
TINY = """\
_base_ = '{base}'

model = dict(
    num_queries=10,
    backbone=dict(base_channels=8, stem_channels=8),
    neck=dict(in_channels=[32, 64], out_channels=32),
    transformer=dict(
        embed_dims=32,
        decoder=dict(num_layers=2, num_heads=4, feedforward_channels=48)))
image_scale = (64, 64)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
loader = dict(batch_size={batch_size}, num_workers=0, persistent_workers=False)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline), **loader)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline), **loader)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=2, val_interval=1)
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(interval=1, max_keep_ckpts=-1))
"""


def make_runs_quick() -> None:
    """Skip slow parts of mmengine in small runs of this process.

    It formats the config for every log and checkpoint, and collects garbage for every dataset,
    which is slow with torch loaded.
    """
    config.FormatCode = yapf_api.FormatCode = lambda text, **_: (text, True)
    gc.freeze()


@dataclass(frozen=True)
class TinyRun:
    """Results of `mim train` and `mim test`."""

    work_dir: Path
    config: Path
    data_root: Path
    show_dir: Path

    @property
    def checkpoint(self) -> Path:
        return self.work_dir / "epoch_2.pth"


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills, once for all pytest-xdist workers of a session."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, done = base / name, base / f"{name}.done"
    with FileLock(base / f"{name}.lock"):
        if not done.exists():
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture
def no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any step of the model fails the test."""
    for name in ("loss", "predict"):
        monkeypatch.setattr(FastDETR, name, lambda *_, **__: pytest.fail("The model was run."))


@pytest.fixture(scope="session")
def shapes(tmp_path_factory) -> Path:
    """The embedded dataset, small."""
    return once(tmp_path_factory, "shapes", lambda out: write_shapes(out, TRAIN_IMAGES, VAL_IMAGES))


@pytest.fixture(scope="session")
def tiny_config_file(tmp_path_factory) -> Path:
    """A user's config file; its data_root is the demo's, so it needs --cfg-options."""

    def make(folder: Path) -> None:
        base = (ROOT / "configs/demo/fast-detr_r18_shapes.py").as_posix()
        (folder / "tiny.py").write_text(TINY.format(base=base, batch_size=BATCH_SIZE))

    return once(tmp_path_factory, "config", make) / "tiny.py"


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, shapes, tiny_config_file) -> TinyRun:
    """Two epochs by `mim train`, then `mim test`, in one work directory."""

    def make(folder: Path) -> None:
        options = ["--work-dir", folder / "work", "--cfg-options", f"data_root={shapes}/"]
        mim("train", tiny_config_file, *options)
        checkpoint = folder / "work/epoch_2.pth"
        arguments = ["-C", checkpoint, "--show-dir", folder / "show", *options]
        mim("test", tiny_config_file, *arguments, own_visualizer(), inside=True)

    folder = once(tmp_path_factory, "tiny_run", make)
    return TinyRun(folder / "work", tiny_config_file, shapes, folder / "show")


def environment() -> dict[str, str]:
    """Environment of small runs: one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def command(program: str, *arguments: str | Path) -> str:
    """Run a program of this environment like a user; return its output."""
    result = subprocess.run(
        [BIN / program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT.parent,  # outside of the checkout
        env=environment(),
    )
    assert result.returncode == 0, f"{program} {arguments} failed:\n{result.stdout[-6000:]}"
    return result.stdout


# Run scripts in fresh processes that share slow imports.
FORKS = """\
import json, os, runpy, sys
import mmdet.apis, mmdet.evaluation, mmdet.models, mmdet.utils, mmengine.runner, torch._dynamo
jobs, failed = json.loads(sys.stdin.read()), []
for log, argv in jobs.items():
    pid = os.fork()
    if pid == 0:
        output = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1), os.dup2(output, 2)
        assert 'fastdetr_mmdet' not in sys.modules
        sys.argv = argv
        runpy.run_path(argv[0], run_name='__main__')
        sys.exit()
    if os.waitpid(pid, 0)[1]:
        failed.append(open(log).read()[-6000:])
sys.exit('\\n'.join(failed) or 0)
"""


def fresh_processes(jobs: Mapping[Path, Sequence[str | Path]]) -> None:
    """Run scripts with arguments; the key is the file of their output.

    mmdet is loaded in each; only a config or the script imports this package.
    """
    texts = {str(log): list(map(str, argv)) for log, argv in jobs.items()}
    result = subprocess.run(
        [sys.executable, "-c", FORKS],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        cwd=ROOT.parent,
        env=environment(),
    )
    assert result.returncode == 0, result.stderr


def mim(name: str, *arguments: str | Path, inside: bool = False) -> None:
    """``mim NAME fastdetr_mmdet``, in this process; if `inside`, so is the program that it starts.

    Without the program's help, which mim asks for --gpus (test_mmdet_tools.py reads it).
    """
    cli = importlib.import_module(f"mim.commands.{name}").cli

    def run(cmd: list[str], **_) -> int:
        assert Path(cmd[0]).samefile(sys.executable)
        patch.setattr(sys, "argv", cmd[1:])
        runpy.run_path(cmd[1], run_name="__main__")
        return 0

    with pytest.MonkeyPatch.context() as patch:
        if inside:
            patch.setenv("LOCAL_RANK", "0")
            patch.setattr(subprocess, "check_call", run)
        else:
            patch.chdir(ROOT.parent)  # outside of the checkout
            for key, value in environment().items():
                patch.setenv(key, value)
            patch.setattr(subprocess, "check_output", lambda *_: b"")
        cli.main(["fastdetr_mmdet", *map(str, arguments)], standalone_mode=False)


_serial = count()


def run_tool(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str | Path) -> None:
    """Run one of mmdet's tools in this process, to avoid its imports."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    monkeypatch.setenv("LOCAL_RANK", "0")  # the scripts would set it permanently
    runpy.run_path(str(find_script(name)), run_name="__main__")


def own_visualizer() -> str:
    """A --cfg-options entry, because runs in one process would share the first's visualizer."""
    return f"visualizer.name=visualizer{next(_serial)}"


def make_runner(config: Path, work_dir: Path, data_root: Path, **options) -> Runner:
    """A runner for the config; a double underscore stands for the dot of --cfg-options."""
    cfg = Config.fromfile(config)
    cfg.work_dir = str(work_dir)
    # mmengine shares visualizers and loggers by name among runs of the same second.
    name = f"run{next(_serial)}"
    cfg.experiment_name = name
    cfg.merge_from_dict({"data_root": f"{data_root}/", "visualizer.name": name})
    cfg.merge_from_dict({key.replace("__", "."): value for key, value in options.items()})
    return Runner.from_cfg(cfg)


def log_rows(work_dir: Path) -> list[dict]:
    """The rows with losses that training runs logged below a folder, oldest run first."""
    files = sorted(work_dir.glob("*/vis_data/scalars.json"))
    rows = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    return [row for row in rows if "loss" in row]


def newest_metrics(work_dir: Path) -> dict[str, float]:
    """The metrics that the newest test run wrote below a folder."""
    return json.loads(sorted(work_dir.glob("*/*.json"))[-1].read_text())


def pictures(folder: Path) -> list[str]:
    """Names of the readable, non-empty pictures in a folder and below."""
    import cv2

    found = [path for path in sorted(folder.rglob("*.[jp][pn]g")) if cv2.imread(str(path)).std()]
    return [path.name for path in found]


def change_annotations(source: Path, target: Path, change: Callable[[dict], None]) -> None:
    """Copy an annotation file with a change."""
    coco = json.loads(source.read_text())
    change(coco)
    target.write_text(json.dumps(coco))


def val_images(data_root: Path, which: Iterable[int] = range(VAL_IMAGES)) -> Sequence[str]:
    """Paths of validation images."""
    paths = sorted((data_root / "val").glob("*.jpg"))
    return [str(paths[index]) for index in which]
