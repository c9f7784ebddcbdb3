"""Time and metrics of epochs are recorded, also across an interruption."""

import json
import multiprocessing
import time

import pytest
from support.runs import make_runner

from fastdetr_mmdet.engine.hooks.training_progress import cpu_seconds
from fastdetr_mmdet.utils.run_history import read_progress

HOOK = [dict(type="TrainingProgressHook")]
KEYS = {"epoch", "train_seconds", "train_cpu_seconds"}
VAL_KEYS = KEYS | {"val_seconds", "val_cpu_seconds", "metrics"}


@pytest.mark.slow
def test_epochs_add_up_over_a_resumed_run(tiny_config_file, shapes, tmp_path):
    """The interrupted epoch is trained again and counted once."""
    common = dict(custom_hooks=HOOK, train_cfg__val_interval=2)
    runner = make_runner(tiny_config_file, tmp_path, shapes, **common)
    runner.train()
    first = read_progress(tmp_path)
    assert [set(entry) for entry in first["epochs"]] == [KEYS, VAL_KEYS]
    assert first["epochs"][1]["metrics"]["coco/bbox_mAP"] >= -1
    assert first["device"] == "cpu"
    assert first["parameters"] == sum(p.numel() for p in runner.model.parameters())
    assert all(0 < entry["train_cpu_seconds"] for entry in first["epochs"])
    assert all(0 < entry["train_seconds"] < 60 for entry in first["epochs"])

    # as if killed in epoch 3, which must not be kept
    cut = {**first, "epochs": [*first["epochs"], {"epoch": 3, "train_seconds": 1e6}]}
    (tmp_path / "progress.json").write_text(json.dumps(cut))
    make_runner(
        tiny_config_file, tmp_path, shapes, resume=True, train_cfg__max_epochs=3, **common
    ).train()
    second = read_progress(tmp_path)
    assert second["epochs"][:2] == first["epochs"]
    assert [entry["epoch"] for entry in second["epochs"]] == [1, 2, 3]
    assert set(second["epochs"][2]) == VAL_KEYS  # the last epoch is always validated
    assert second["epochs"][2]["train_seconds"] < 1e5


def test_training_by_iteration_is_refused(tiny_config_file, shapes, tmp_path):
    runner = make_runner(
        tiny_config_file,
        tmp_path,
        shapes,
        custom_hooks=HOOK,
        train_cfg=dict(_delete_=True, type="IterBasedTrainLoop", max_iters=2),
    )
    with pytest.raises(TypeError, match=r"set train_cfg\.type='EpochBasedTrainLoop'"):
        runner.train()


def burn(seconds, ready, end):
    start = time.process_time()
    while time.process_time() - start < seconds:
        pass
    ready.set()
    end.wait()


def test_workers_count_while_they_live_and_after():
    context = multiprocessing.get_context("fork")
    ready, end = context.Event(), context.Event()
    before, own = cpu_seconds(), time.process_time()
    worker = context.Process(target=burn, args=(0.3, ready, end))
    worker.start()
    ready.wait()
    alive = cpu_seconds() - before - (time.process_time() - own)
    end.set()
    worker.join()
    ended = cpu_seconds() - before - (time.process_time() - own)
    assert 0.25 < alive < 3
    assert 0.25 < ended < 3
