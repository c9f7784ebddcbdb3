"""A checkpoint with a config that it does not belong to is refused wherever mmdet predicts."""

import pytest
import torch
from mmdet.apis import DetInferencer, init_detector
from mmdet.registry import MODELS
from mmengine.config import Config
from support.runs import make_runner

from fastdetr_mmdet.checkpoints.belonging import lacking
from fastdetr_mmdet.checkpoints.safe_loading import CheckpointError


def other_config(run) -> Config:
    """A config with the checkpoint's classes, but without half of its weights."""
    config = Config.fromfile(run.work_dir / run.config.name)
    config.model.transformer.decoder.feedforward_channels = 32
    return config


def test_inferencers(tiny_run):
    file = str(tiny_run.checkpoint)
    for build in (
        lambda config: init_detector(config, file, device="cpu"),
        lambda config: DetInferencer(config, file, device="cpu"),
    ):
        with pytest.raises(CheckpointError, match="of another shape") as error:
            build(other_config(tiny_run))
        assert str(tiny_run.work_dir / tiny_run.config.name) in str(error.value)
        build(Config.fromfile(tiny_run.work_dir / tiny_run.config.name))


@pytest.mark.parametrize("test", [True, False])
def test_runner(test, tiny_run, tmp_path):
    """Tests are refused; training may start from weights that fit."""
    options = {"model__transformer__decoder__feedforward_channels": 32,
               "load_from": str(tiny_run.checkpoint)}  # fmt: skip
    runner = make_runner(tiny_run.config, tmp_path, tiny_run.data_root, **options)
    if test:
        with pytest.raises(CheckpointError, match="does not belong"):
            runner.test()
    else:
        runner.train()
        runner.test()


@pytest.mark.parametrize("use", ["test", "DetInferencer", "init_detector"])
def test_weights_without_a_place_are_named_in_one_line(use, tiny_run, tmp_path, capsys):
    """Neither mmengine nor the hook lists each weight."""
    content = torch.load(tiny_run.checkpoint, weights_only=True)
    content["state_dict"] |= {f"relic.a.{number}": torch.zeros(1) for number in range(500)}
    file = str(tmp_path / "it.pth")
    torch.save(content, file)
    config = Config.fromfile(tiny_run.work_dir / tiny_run.config.name)
    if use == "test":
        runner = make_runner(tiny_run.config, tmp_path, tiny_run.data_root, load_from=file)
        runner.load_or_resume()
    elif use == "DetInferencer":
        DetInferencer(config, file, device="cpu")
    else:
        init_detector(config, file, device="cpu")
    said = [line for line in "".join(capsys.readouterr()).splitlines() if "relic" in line]
    assert len(said) == 1 and "500 weights" in said[0] and "relic.a (500)" in said[0]
    assert len(said[0]) < 200


def test_other_models_and_other_names_are_left_alone(tiny_run):
    content = torch.load(tiny_run.checkpoint, weights_only=True)
    assert lacking(torch.nn.Linear(1, 1), content) == ""
    config = Config.fromfile(tiny_run.work_dir / tiny_run.config.name)
    model = MODELS.build(config.model)
    bare = {f"module.{key}": value for key, value in content["state_dict"].items()}
    assert lacking(model, bare) == "" == lacking(model, content)
    del bare["module.bbox_head.cls_branches.0.weight"]
    assert "1 missing" in lacking(model, bare)
