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
def one(train):
    return train("one", **IN_ONE)


@pytest.fixture(scope="session")
def two(train):
    return train("two")


@pytest.fixture(scope="session")
def sharded(train):
    return train("sharded", **FSDP)


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


def test_two_processes_train_as_one(one, two):
    """Every step has the same images, so the weights are equal."""
    check_log(two, one)
    # AdamW moves every weight by up to 4e-5 per step, for any gradient
    check_weights(state(two), state(one), atol=2e-5)


@pytest.mark.filterwarnings("ignore:.*FSDP:FutureWarning")
def test_fsdp_trains_as_ddp(two, sharded):
    """Clipping uses the norm over all processes; mmengine would clip each shard."""
    check_log(sharded, two)
    check_weights(state(sharded), state(two), atol=2e-5)
    for name, tensor in state(two)["optimizer"]["state"].items():
        assert set(tensor) == {"step", "exp_avg", "exp_avg_sq"}, name


@pytest.mark.parametrize("kind", ["two", "sharded"])
def test_resume(kind, train, request):
    """Other processes resume a run that was interrupted after the first epoch."""
    whole = request.getfixturevalue(kind)
    options = FSDP if kind == "sharded" else {}
    source = str(whole / "epoch_1.pth")
    resumed = train(f"resumed {kind}", resume=True, load_from=source, **options)
    assert [row["step"] for row in log_rows(resumed)] == list(range(ITERS + 1, 2 * ITERS + 1))
    actual, expected = state(resumed), state(whole)
    check_weights(actual, expected, atol=1e-7)
    for name, values in expected["optimizer"]["state"].items():
        actual_values = actual["optimizer"]["state"][name]
        torch.testing.assert_close(
            actual_values["exp_avg"], values["exp_avg"], rtol=1e-4, atol=1e-7
        )


def test_fsdp_checkpoint_is_a_common_one(sharded, tiny_config_file):
    checkpoint = state(sharded)
    assert {"meta", "message_hub", "state_dict", "optimizer", "param_schedulers"} <= set(checkpoint)
    model = MODELS.build(Config.fromfile(tiny_config_file).model)
    load_checkpoint(model, str(sharded / "epoch_2.pth"), strict=True)


@pytest.mark.parametrize("options", [{}, FSDP], ids=["ddp", "fsdp"])
def test_results_are_gathered_in_order(processes, one, shapes, tiny_config_file, tmp_path, options):
    """With seven images, an odd number for two processes."""

    def drop_one(coco):
        image = coco["images"].pop()
        coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] != image["id"]]

    annotations = tmp_path / "val.json"
    change_annotations(shapes / "annotations/val.json", annotations, drop_one)
    found = {}
    for world_size in (1, 2):
        folder = tmp_path / f"{world_size}"
        dump = dict(type="DumpDetResults", out_file_path=str(folder / "out.pkl"))
        coco = dict(type="CocoMetric", ann_file=str(annotations), metric="bbox")
        settings = {
            "data_root": f"{shapes}/",
            **ALIKE,
            "load_from": str(one / "epoch_2.pth"),
            "test_dataloader.dataset.ann_file": str(annotations),
            "test_dataloader.batch_size": 2,
            "test_evaluator": [coco, dump],
        }
        arguments = dict(config=str(tiny_config_file), work_dir=str(folder))
        if world_size == 1:
            arguments |= dict(launcher="none", options=settings)
        else:
            arguments |= dict(options={**settings, **options})
        metrics = processes.run("test", folder, world_size, **arguments)
        found[world_size] = metrics, pickle.loads((folder / "out.pkl").read_bytes())
    (expected, *_), predictions = found[1]
    for metrics in found[2][0]:
        assert metrics == pytest.approx(expected, abs=1e-6)
    ids = [image["id"] for image in json.loads(annotations.read_text())["images"]]
    assert len(ids) == VAL_IMAGES - 1
    for result in (predictions, found[2][1]):
        assert [prediction["img_id"] for prediction in result] == ids
    for prediction, other in zip(predictions, found[2][1], strict=True):
        boxes, expected_boxes = other["pred_instances"], prediction["pred_instances"]
        torch.testing.assert_close(boxes["scores"], expected_boxes["scores"], rtol=0, atol=1e-5)
