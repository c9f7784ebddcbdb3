"""A run's folder: what is continued, and what is not."""

import subprocess

import pytest

from fastdetr_mmdet.convergence import Run, apply_budget, train_all
from fastdetr_mmdet.convergence import run as run_module

TEXT = """\
train_cfg = dict(max_epochs=4)
val_evaluator = dict(type='CocoMetric')
optim_wrapper = dict(optimizer=dict(lr=0.1))
param_scheduler = [dict(type='LinearLR', by_epoch=False, begin=0, end=100), {steps}]
"""
STEPS = "dict(type='MultiStepLR', milestones=[2])"


@pytest.fixture
def constant(tmp_path):
    """A learning rate without an end."""
    (tmp_path / "constant.py").write_text(TEXT.format(steps=""))
    return tmp_path / "constant.py"


@pytest.fixture
def steps(tmp_path):
    """A learning rate that changes at a share of the epochs."""
    (tmp_path / "steps.py").write_text(TEXT.format(steps=STEPS))
    return tmp_path / "steps.py"


def prepared(path, out, epochs, **options):
    run = Run(path.stem, 0, epochs, out)
    run.prepare(apply_budget(path, epochs, 0, options=options))
    return run


def test_the_same_run_is_continued(constant, tmp_path):
    run = prepared(constant, tmp_path, 2)
    run.work_dir.mkdir(parents=True)
    before = run.config.read_text()
    assert prepared(constant, tmp_path, 2).config.read_text() == before


def test_another_run_is_refused(constant, tmp_path):
    run = prepared(constant, tmp_path, 2)
    run.work_dir.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"another config .*optimizer\.lr.*another --out"):
        prepared(constant, tmp_path, 2, **{"optim_wrapper.optimizer.lr": 1.0})
    with pytest.raises(ValueError, match=r"differs in .*max_epochs"):
        prepared(constant, tmp_path, 1)
    with pytest.raises(ValueError, match=r"differs in note\)"):  # which has no values of its own
        prepared(constant, tmp_path, 2, note={})
    prepared(constant, tmp_path, 2)


def test_a_run_is_made_longer_where_the_schedule_does_not_mind(constant, steps, tmp_path):
    for path in (constant, steps):
        prepared(path, tmp_path, 6).work_dir.mkdir(parents=True)
    assert "max_epochs=8" in prepared(constant, tmp_path, 8).config.read_text().replace(" ", "")
    with pytest.raises(ValueError, match=r"differs in .*param_scheduler"):
        prepared(steps, tmp_path, 8)


def test_a_run_is_not_trained_twice_at_once(tmp_path, monkeypatch):
    """The lock lives as long as the training process, not as long as who started it."""
    monkeypatch.setattr(run_module, "_TRAIN", "import time; time.sleep(60)")
    run = Run("sleeper", 0, 1, tmp_path)
    process = run.start()
    try:
        with pytest.raises(RuntimeError, match=rf"another process \(pid {process.pid}\)"):
            run.start()
        told = []
        failed = train_all([run], tell=told.append)
        assert "wait for it or end it" in failed[run] and failed[run] in told[0]
    finally:
        process.kill()
        process.wait()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "_TRAIN", "pass")
        assert run.start().wait() == 0


def test_a_failed_run_is_named_and_the_others_go_on(tmp_path, monkeypatch):
    """Two at a time; the reason is the end of what it printed."""
    monkeypatch.setattr(run_module, "_TRAIN", "import sys; sys.exit('no ' + sys.argv[1][-9:])")
    runs = [Run(name, 0, 1, tmp_path) for name in "abc"]
    failed = train_all(runs, jobs=2, tell=lambda line: None)
    assert set(failed) == set(runs)
    assert "c, seed 0: training ended with exit status 1" in failed[runs[2]]
    assert failed[runs[2]].endswith("no seed_0.py")


def test_says_where_a_run_continues(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "_TRAIN", "pass")
    run, told = Run("a", 0, 5, tmp_path), []
    train_all([run], tell=told.append)
    (run.work_dir / "last_checkpoint").write_text(str(run.work_dir / "epoch_3.pth"))
    train_all([run], tell=told.append)
    starts = [line.split(" as process")[0] for line in told if " as process" in line]
    assert starts == ["a, seed 0: started", "a, seed 0: continued from epoch 3"]


def test_trainings_end_with_the_command(tmp_path, monkeypatch):
    """What interrupts us between two looks at the processes ends them."""
    monkeypatch.setattr(run_module, "_TRAIN", "import time; time.sleep(60)")
    started: list[subprocess.Popen] = []
    start = Run.start

    def keep(run):
        started.append(start(run))
        return started[-1]

    def tell(line):
        if line.startswith("b"):
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "start", keep)
    with pytest.raises(KeyboardInterrupt):
        train_all([Run("a", 0, 1, tmp_path), Run("b", 0, 1, tmp_path)], jobs=2, tell=tell)
    assert [process.returncode for process in started] == [-15, -15]
