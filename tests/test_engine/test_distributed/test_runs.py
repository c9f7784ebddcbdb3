"""Training, resuming and testing in two processes equal one process."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from support.runs import ITERS, VAL_IMAGES, change_annotations, log_rows, once

# Turns off what depends on a batch's images: batch-norm statistics and padding.
ALIKE = {"model.backbone.norm_eval": True, "model.data_preprocessor.pad_size_divisor": 64}
FSDP = {"runner_type": "FlexibleRunner", "strategy": dict(type="FullFSDPStrategy")}
IN_ONE = dict(world_size=1, launcher="none")


@pytest.fixture(scope="session")
def train(processes, tmp_path_factory, tiny_config_file, shapes):
    """Trains once for all tests, by default in two processes with two images each."""

    def run(name, world_size=2, launcher="pytorch", **options) -> Path:
        settings = {"data_root": f"{shapes}/", **ALIKE, **options}
        settings.setdefault("train_dataloader.batch_size", 4 // world_size)

        def make(folder: Path) -> None:
            arguments = dict(config=str(tiny_config_file), work_dir=str(folder))
            arguments |= dict(options=settings, launcher=launcher)
            processes.run("train", folder, world_size, **arguments)

        return once(tmp_path_factory, name, make)

    return run


@pytest.fixture(scope="session")
def runs(train):
    """Work directories by kind: one process, two, and two with FSDP."""
    kinds = {"one": IN_ONE, "two": {}, "sharded": FSDP}
    return lambda kind: train(kind, **kinds[kind])


def state(folder, epoch=2):
    return torch.load(folder / f"epoch_{epoch}.pth", map_location="cpu", weights_only=True)


def check_weights(actual, expected, atol):
    for name, tensor in expected["state_dict"].items():
        torch.testing.assert_close(actual["state_dict"][name], tensor, rtol=0, atol=atol, msg=name)


def check_log(actual, expected):
    rows, expected_rows = log_rows(actual), log_rows(expected)
    assert len(rows) == len(expected_rows) == 2 * ITERS
    for row, wanted in zip(rows, expected_rows, strict=True):
        assert row["lr"] == wanted["lr"]
        assert row["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-3)


@pytest.mark.filterwarnings("ignore:.*FSDP:FutureWarning")
@pytest.mark.parametrize(("kind", "as_kind"), [("two", "one"), ("sharded", "two")])
def test_two_processes_train_as_one(kind, as_kind, runs, tiny_config_file):
    """Every step has the same images, so the weights are equal.

    FSDP clips by the norm over all processes, where mmengine would clip each shard, and writes
    checkpoints of the whole model.
    """
    folder, expected = runs(kind), runs(as_kind)
    check_log(folder, expected)
    # AdamW moves every weight by up to 4e-5 per step, for any gradient
    check_weights(state(folder), state(expected), atol=2e-5)
    assert {"meta", "message_hub", "optimizer", "param_schedulers"} <= set(state(folder))
    for name, tensors in state(expected)["optimizer"]["state"].items():
        assert set(tensors) == {"step", "exp_avg", "exp_avg_sq"}, name
    model = MODELS.build(Config.fromfile(tiny_config_file).model)
    load_checkpoint(model, str(folder / "epoch_2.pth"), strict=True)


@pytest.mark.parametrize("kind", ["two", "sharded"])
def test_resume(kind, train, runs):
    """Other processes resume a run that was interrupted after the first epoch."""
    whole = runs(kind)
    options = FSDP if kind == "sharded" else {}
    source = str(whole / "epoch_1.pth")
    resumed = train(f"resumed {kind}", resume=True, load_from=source, **options)
    assert [row["step"] for row in log_rows(resumed)] == list(range(ITERS + 1, 2 * ITERS + 1))
    actual, expected = state(resumed), state(whole)
    check_weights(actual, expected, atol=1e-7)
    for name, values in expected["optimizer"]["state"].items():
        averages = actual["optimizer"]["state"][name]["exp_avg"], values["exp_avg"]
        torch.testing.assert_close(*averages, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("options", [{}, FSDP], ids=["ddp", "fsdp"])
def test_results_are_gathered_in_order(
    processes, runs, shapes, tiny_config_file, tmp_path, options
):
    """With seven images, an odd number for two processes."""

    def drop_one(coco):
        image = coco["images"].pop()
        coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] != image["id"]]

    annotations = tmp_path / "val.json"
    change_annotations(shapes / "annotations/val.json", annotations, drop_one)
    coco = dict(type="CocoMetric", ann_file=str(annotations), metric="bbox")
    found = []
    for world_size, launcher in ((1, "none"), (2, "pytorch")):
        folder = tmp_path / f"{world_size}"
        dump = dict(type="DumpDetResults", out_file_path=str(folder / "out.pkl"))
        settings = {
            "data_root": f"{shapes}/",
            **ALIKE,
            "load_from": str(runs("one") / "epoch_2.pth"),
            "test_dataloader.dataset.ann_file": str(annotations),
            "test_dataloader.batch_size": 2,
            "test_evaluator": [coco, dump],
            **(options if world_size == 2 else {}),
        }
        arguments = dict(config=str(tiny_config_file), work_dir=str(folder), launcher=launcher)
        metrics = processes.run("test", folder, world_size, options=settings, **arguments)
        found.append((metrics, pickle.loads((folder / "out.pkl").read_bytes())))
    ((expected,), predictions), (both, gathered) = found
    assert both == [pytest.approx(expected, abs=1e-6)] * 2
    ids = [image["id"] for image in json.loads(annotations.read_text())["images"]]
    assert len(ids) == VAL_IMAGES - 1
    for result in (predictions, gathered):
        assert [prediction["img_id"] for prediction in result] == ids
    for pair in zip(gathered, predictions, strict=True):
        scores = [prediction["pred_instances"]["scores"] for prediction in pair]
        torch.testing.assert_close(*scores, rtol=0, atol=1e-5)
