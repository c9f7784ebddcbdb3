"""A run's folder: continuing or refusing, and start and end of trainings."""

import sys

import pytest

from fastdetr_mmdet.convergence import runs as runs_module
from fastdetr_mmdet.convergence.budget import apply_budget
from fastdetr_mmdet.convergence.runs import Run, end, train_all
from fastdetr_mmdet.utils.cli import UsageError, UserError

TEXT = """\
train_cfg = dict(max_epochs=4)
val_evaluator = dict(type='CocoMetric')
optim_wrapper = dict(optimizer=dict(lr=0.1))
param_scheduler = [dict(type='LinearLR', by_epoch=False, begin=0, end=100), {steps}]
"""


@pytest.fixture
def config(tmp_path):
    """Makes a config with a constant learning rate, or one that changes by epochs."""

    def make(steps=""):
        path = tmp_path / ("steps.py" if steps else "constant.py")
        path.write_text(TEXT.format(steps=steps))
        return path

    return make


def prepared(path, out, epochs, **options):
    run = Run(path.stem, 0, epochs, out)
    run.prepare(apply_budget(path, epochs, 0, options=options))
    return run


def test_the_same_run_is_continued_and_another_refused(config, tmp_path):
    run = prepared(config(), tmp_path, 2)
    run.work_dir.mkdir(parents=True)
    before = run.config.read_text()
    for epochs, options, word in (
        (2, {"optim_wrapper.optimizer.lr": 1.0}, r"optimizer\.lr"),
        (1, {}, "max_epochs"),
        (2, dict(note={}), "note"),  # the config has no values of its own
    ):
        with pytest.raises(UsageError, match=word):
            prepared(config(), tmp_path, epochs, **options)
    assert prepared(config(), tmp_path, 2).config.read_text() == before


def test_a_run_is_made_longer_if_the_schedule_does_not_depend_on_it(config, tmp_path):
    constant, steps = config(), config("dict(type='MultiStepLR', milestones=[2])")
    for path in (constant, steps):
        prepared(path, tmp_path, 6).work_dir.mkdir(parents=True)
    assert "max_epochs=8" in prepared(constant, tmp_path, 8).config.read_text().replace(" ", "")
    with pytest.raises(UsageError, match="param_scheduler"):
        prepared(steps, tmp_path, 8)


@pytest.fixture
def fake_mim(tmp_path, monkeypatch):
    """Replace mim by a program with the arguments of ``mim train``."""
    monkeypatch.setattr(runs_module, "_POLL_SECONDS", 0.02)

    def make(code):
        script = tmp_path / "mim"
        script.write_text(f"#!{sys.executable}\nimport os, subprocess, sys, time\n{code}\n")
        script.chmod(0o755)
        monkeypatch.setattr(runs_module, "find_mim", lambda: str(script))

    return make


def test_a_run_is_not_trained_twice_at_once(tmp_path, fake_mim):
    """Also if the command that started it, and mim, were killed."""
    sleep = "[sys.executable, '-c', 'import time; time.sleep(60)']"
    fake_mim(f"subprocess.Popen({sleep})")
    run, told = Run("sleeper", 0, 1, tmp_path), []
    process = run.start()
    assert process.wait() == 0  # its child process goes on
    with pytest.raises(UserError, match=str(process.pid)):
        run.start()
    assert str(process.pid) in train_all([run], tell=told.append)[run] and len(told) == 1
    end(process)
    fake_mim("pass")
    assert run.start().wait() == 0


def test_failed_runs_are_named_and_the_others_go_on(tmp_path, fake_mim):
    """Two at a time; the reason is the end of the output."""
    fake_mim("sys.exit('no ' + sys.argv[3][-9:])")
    runs = [Run(name, 0, 1, tmp_path) for name in "abc"]
    failed = train_all(runs, jobs=2, tell=lambda line: None)
    assert set(failed) == set(runs)
    assert "c, seed 0" in failed[runs[2]] and failed[runs[2]].endswith("no seed_0.py")


def test_runs_are_started_by_mim_train_and_resume(tmp_path, fake_mim):
    fake_mim("print(*sys.argv[1:])")
    run, told = Run("a", 0, 5, tmp_path), []
    train_all([run], tell=told.append)
    command = f"train fastdetr_mmdet {run.config} --work-dir {run.work_dir} --resume"
    assert run.log.read_text() == f"{command}\n"
    (run.work_dir / "last_checkpoint").write_text(str(run.work_dir / "epoch_3.pth"))
    train_all([run], tell=told.append)
    assert ["epoch 3" in line for line in told if " as process" in line] == [False, True]


@pytest.mark.parametrize(
    ("visible", "count", "expected"),
    [(None, 0, [None] * 3), (None, 2, ["0", "1", "0"]), ("3,5", 2, ["3", "5", "3"]),
     ("2,4", 1, ["2"] * 3)],
)  # fmt: skip
def test_each_job_has_a_gpu(visible, count, expected, tmp_path, fake_mim, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    # each waits until all three run
    wait = f"while len(glob.glob({str(tmp_path)!r} + '/*/*/train.log')) < 3: time.sleep(0.01)"
    fake_mim(f"import glob; print(os.environ.get('CUDA_VISIBLE_DEVICES'))\n{wait}\ntime.sleep(0.1)")
    runs = [Run(name, 0, 1, tmp_path) for name in "abc"]
    train_all(runs, jobs=3, tell=lambda line: None)
    assert [run.log.read_text().strip() for run in runs] == [str(name) for name in expected]
