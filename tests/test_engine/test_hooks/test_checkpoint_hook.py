"""AtomicCheckpointHook's decisions; tests/test_faults kills runs with it."""

import logging
import os
from errno import EACCES, EDQUOT, EFBIG, ENOSPC
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import HOOKS
from mmengine.hooks import CheckpointHook
from mmengine.logging import MessageHub, MMLogger
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner, save_checkpoint

from fastdetr_mmdet import AtomicCheckpointHook
from fastdetr_mmdet.engine.hooks.atomic_checkpoint import VALIDATED, explain_full_disk
from fastdetr_mmdet.utils.files import UNFINISHED


class Saver(SimpleNamespace):
    """A minimal runner for the hook, with minimal checkpoints."""

    def save_checkpoint(self, out_dir, filename, file_client_args, meta, backend_args, **kwargs):
        hub = self.message_hub.state_dict()
        checkpoint = dict(meta=dict(meta), message_hub=hub, kwargs=sorted(kwargs))
        save_checkpoint(checkpoint, f"{out_dir}/{filename}", backend_args=backend_args)


@pytest.fixture
def make_runner(tmp_path):
    def make(work_dir: Path = tmp_path, **attributes) -> Saver:
        unset = ("param_schedulers", "_train_loop", "_val_loop", "_test_loop", "_load_from")
        values = dict.fromkeys(unset) | dict(iter=0, epoch=0, _resume=False)
        values |= dict(work_dir=str(work_dir), timestamp="20260103_120000", logger=MMLogger("x"))
        values |= dict(message_hub=MessageHub(f"hub{id(attributes)}"))
        return Saver(**(values | attributes))

    return make


def make_hook(**options) -> AtomicCheckpointHook:
    return HOOKS.build(dict(type="AtomicCheckpointHook", interval=1, **options))


def train(hook, runner, epochs: int, scores=()) -> None:
    """Train epochs of ten iterations, with validations if there are scores."""
    hook.before_train(runner)
    for index in range(epochs):
        runner.iter += 10
        hook._save_checkpoint(runner)
        runner.epoch += 1
        if index < len(scores):
            hook.after_val_epoch(runner, scores[index])


def names(folder: Path) -> set[str]:
    """Names of all files except last_validation."""
    return {path.name for path in folder.iterdir()} - {VALIDATED}


def test_same_files_as_mmengine_s(make_runner, tmp_path):
    """In all folders, for the options that matter."""
    scores = [dict(mAP=a, loss=b) for a, b in ((0.1, 3), (0.3, 4), (0.2, 2), (0.3, 3))]
    options = [
        dict(),
        dict(max_keep_ckpts=2),
        dict(max_keep_ckpts=1, save_best="mAP"),
        dict(max_keep_ckpts=1, save_best=["mAP", "loss"]),
        dict(out_dir=str(tmp_path / "out"), save_best="mAP"),
        dict(filename_tmpl="model-{}.pth", max_keep_ckpts=3),
    ]
    for number, option in enumerate(options):
        found = []
        for hook in (AtomicCheckpointHook, CheckpointHook):
            work_dir = tmp_path / f"{hook.__name__}{number}"
            work_dir.mkdir()
            own = hook(interval=1, save_optimizer=False, **option)
            train(own, make_runner(work_dir), 4, scores)
            folder = tmp_path / "out" / work_dir.name if "out_dir" in option else work_dir
            text = (work_dir / "last_checkpoint").read_text()
            given = torch.load(text, weights_only=True)["kwargs"]
            assert given == ["by_epoch", "save_optimizer", "save_param_scheduler"]
            found.append((names(folder), names(work_dir), os.path.relpath(text, folder)))
        assert found[0] == found[1], option


def test_meta_is_the_hook_s(make_runner, tmp_path, monkeypatch):
    """mmengine's FlexibleRunner stores one epoch too many after a validation."""

    def save(self, out_dir, filename, file_client_args, meta, **kwargs):
        meta.update(epoch=self.epoch + 1, iter=self.iter + 1)
        checkpoint = dict(meta=meta)
        hook.before_save_checkpoint(self, checkpoint)
        torch.save(checkpoint, f"{out_dir}/{filename}")

    monkeypatch.setattr(Saver, "save_checkpoint", save)
    hook = make_hook()
    train(hook, make_runner(), epochs=2, scores=[dict(mAP=0.1), dict(mAP=0.2)])
    for epoch in (1, 2):
        meta = torch.load(tmp_path / f"epoch_{epoch}.pth")["meta"]
        assert (meta["epoch"], meta["iter"]) == (epoch, 10 * epoch)
        assert meta["validation_due"] == "epoch"  # written before the validation


def test_what_a_validation_found_comes_back(make_runner, tmp_path):
    """From a small file, without writing the checkpoint again."""
    runner = make_runner()
    train(make_hook(save_best="mAP"), runner, epochs=2, scores=[dict(mAP=0.4), dict(mAP=0.3)])
    for epoch, due in ((1, "epoch"), (2, None)):
        checkpoint = torch.load(tmp_path / f"epoch_{epoch}.pth")
        hook = make_hook(save_best="mAP")
        hook.after_load_checkpoint(make_runner(), checkpoint)
        assert hook._last_meta["validation_due"] == due
        found = checkpoint["message_hub"]["runtime_info"].get("best_score")
        assert found == (None if epoch == 1 else 0.4)
    other = make_hook()
    other.after_load_checkpoint(runner, dict(meta=dict(iter=20, time="x", validation_due="epoch")))
    assert other._last_meta["validation_due"] == "epoch"  # the checkpoint is another run's


def test_schedules_that_go_by_metrics_need_the_checkpoint_again(make_runner, tmp_path):
    """A validation changes the schedulers and the learning rate."""
    plateau = SimpleNamespace(need_val_args=True)
    runner = make_runner(param_schedulers=[SimpleNamespace(), plateau])
    train(make_hook(), runner, epochs=1, scores=[dict(mAP=0.4)])
    assert torch.load(tmp_path / "epoch_1.pth")["meta"]["validation_due"] is None
    assert not (tmp_path / VALIDATED).exists()


def test_unfinished_files_are_removed_when_training_starts(make_runner, tmp_path):
    (tmp_path / f"epoch_9.pth{UNFINISHED}").touch()
    hook = make_hook(save_best="mAP")
    hook.before_run(make_runner())  # a test or validation may run during training
    hook.after_val_epoch(make_runner(), dict(mAP=0.5))
    assert names(tmp_path) == {f"epoch_9.pth{UNFINISHED}"}
    hook.before_train(make_runner())
    assert names(tmp_path) == set()


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("keys", [["mAP"], ["mAP", "loss"]])
def test_former_best_of_a_folder_that_was_copied_or_moved(make_runner, tmp_path, keys, moved):
    """The checkpoint names the original's file; this folder's is removed, the original's stays."""
    original, here = tmp_path / "original", tmp_path / "here"
    former = {f"best_{key}_epoch_9.pth" for key in keys}
    for folder in [here] if moved else [here, original]:
        folder.mkdir()
        for name in former:
            (folder / name).touch()
    hook, runner = make_hook(save_best=keys), make_runner(here)
    for key in keys:
        suffix = f"_{key}" if len(keys) > 1 else ""
        path, score = original / f"best_{key}_epoch_9.pth", dict(mAP=0.1, loss=3)[key]
        runner.message_hub.update_info(f"best_ckpt{suffix}", str(path))
        runner.message_hub.update_info(f"best_score{suffix}", score)
    train(hook, runner, epochs=1, scores=[dict(mAP=0.2, loss=2)])
    best = {f"best_{key}_epoch_1.pth" for key in keys}
    assert names(here) == {*best, "epoch_1.pth", "last_checkpoint"}
    assert moved or names(original) == former


def test_published(make_runner, tmp_path):
    hook = make_hook(published_keys=["meta"])
    runner = make_runner()
    train(hook, runner, epochs=1)
    hook.after_train(runner)
    (published,) = tmp_path.glob("epoch_1-*.pth")
    assert set(torch.load(published)) == {"meta"}


# --------------------------------------------------------------------------------------------------
# Before training


def test_a_broken_file_that_was_named(make_runner, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"PK\x03\x04")
    for resume in (False, True):
        with pytest.raises(ValueError, match=r"weights.pth is cut short.* Name another one"):
            make_hook().before_run(make_runner(_load_from=str(path), _resume=resume))


@pytest.mark.parametrize("out_dir", [None, "out"])
def test_a_broken_file_that_would_be_resumed(make_runner, tmp_path, out_dir):
    work_dir = tmp_path / "work"
    work_dir.mkdir()
    folder = work_dir if out_dir is None else tmp_path / out_dir / "work"
    options = {} if out_dir is None else dict(out_dir=str(tmp_path / out_dir))
    train(make_hook(**options), make_runner(work_dir), epochs=2)
    (folder / "epoch_2.pth").write_bytes(b"")
    runner = make_runner(work_dir, _resume=True)
    make_hook(**options).before_run(runner)
    assert (work_dir / "last_checkpoint").read_text() == str(folder / "epoch_1.pth")


def test_nothing_to_resume_where_a_training_was(make_runner, tmp_path, caplog):
    """The runner's own log does not count as an earlier training's."""
    runner = make_runner(_resume=True, logger=logging.getLogger("test"))
    for timestamp in ("20260101_120000", runner.timestamp):
        (tmp_path / timestamp).mkdir()
        log = tmp_path / timestamp / f"{timestamp}.log"
        log.write_text("mmengine - INFO - Epoch(train)  [7][20/20]  lr: 1.0000e-04\n")
    make_hook().before_run(runner)
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "20260101_120000.log is the log of an earlier training" in warning


def test_without_resume_nothing_is_looked_at(make_runner, tmp_path):
    (tmp_path / "last_checkpoint").write_text("none.pth")
    make_hook().before_run(make_runner())
    assert (tmp_path / "last_checkpoint").read_text() == "none.pth"


def make_loop(kind, done: int, **options):
    """A loop at a position."""
    values = dict(val_begin=1, val_interval=2, dynamic_milestones=[0], dynamic_intervals=[2])
    loop = kind.__new__(kind)
    vars(loop).update(values, _max_epochs=5, _max_iters=5, _iter=done, _epoch=done, **options)
    return loop


@pytest.mark.parametrize(
    ("kind", "due", "done", "owes"),
    [
        (EpochBasedTrainLoop, "epoch", 1, False),  # every second
        (EpochBasedTrainLoop, "epoch", 2, True),
        (EpochBasedTrainLoop, "epoch", 5, True),  # the last
        (EpochBasedTrainLoop, None, 2, False),  # done already
        (EpochBasedTrainLoop, "iter", 2, False),  # in the middle of an epoch
        (IterBasedTrainLoop, "iter", 2, True),
        (IterBasedTrainLoop, "iter", 3, False),
        (IterBasedTrainLoop, "epoch", 2, False),
    ],
)
def test_owed_validation(make_runner, kind, due, done, owes):
    runner = make_runner(train_loop=make_loop(kind, done), val_loop=object())
    hook = make_hook()
    for val_loop, checkpoint, expected in (
        (runner.val_loop, dict(meta=dict(validation_due=due)), owes),
        (None, dict(meta=dict(validation_due=due)), False),
        (runner.val_loop, {}, False),
    ):
        runner.val_loop = val_loop
        hook.after_load_checkpoint(runner, checkpoint)
        assert hook._owes_validation(runner) is expected


# --------------------------------------------------------------------------------------------------
# A full disk


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        *((code, RuntimeError, "scalars.json .*{}") for code in (ENOSPC, EDQUOT, EFBIG)),
        (EACCES, PermissionError, "scalars.json"),  # other errors stay what they are
    ],
)
def test_a_log_that_cannot_be_written(tmp_path, code, kind, words):
    with pytest.raises(kind, match=words.format(f"{os.strerror(code)}.* {tmp_path}")):
        with explain_full_disk(str(tmp_path)):
            raise OSError(code, os.strerror(code), "scalars.json")


def test_runs_before_mmengine_loads():
    """In both mmengines, before_run comes before loading."""
    names = Runner.train.__code__.co_names
    assert names.index("load_or_resume") > names.index("call_hook")
