"""A checkpoint with a config that it does not belong to is refused wherever mmdet predicts."""

import pytest
import torch
from mmdet.apis import DetInferencer, det_inferencer, inference, init_detector
from mmengine.config import Config
from support.runs import make_runner

from fastdetr_mmdet.checkpoints.safe_loading import CheckpointError


def test_inferencers(tiny_run):
    """The error names the config beside the checkpoint."""
    file, config = str(tiny_run.checkpoint), tiny_run.work_dir / tiny_run.config.name
    other = Config.fromfile(config)
    other.model.transformer.decoder.feedforward_channels = 32
    for build in (init_detector, DetInferencer):
        with pytest.raises(CheckpointError, match="of another shape") as error:
            build(other, file, device="cpu")
        assert file in str(error.value) and str(config) in str(error.value)
        build(Config.fromfile(config), file, device="cpu")


def test_other_models_are_left_to_mmdet(tiny_run):
    """mmdet loads what it can of an incomplete checkpoint."""
    model = torch.nn.Linear(1, 1)
    content = inference.load_checkpoint(model, str(tiny_run.checkpoint))
    det_inferencer._load_checkpoint_to_model(model, content)


def test_a_training_may_start_from_weights_that_fit(tiny_run, tmp_path):
    """A test with them is refused, see test_fine_tuning.py, but not after the training."""
    options = {"model__transformer__decoder__feedforward_channels": 32,
               "load_from": str(tiny_run.checkpoint)}  # fmt: skip
    runner = make_runner(tiny_run.config, tmp_path, tiny_run.data_root, **options)
    runner.train()
    runner.test()


@pytest.mark.parametrize("use", [make_runner, DetInferencer, init_detector])
def test_weights_without_a_place_are_named_in_one_line(use, tiny_run, tmp_path, capsys):
    """Neither mmengine nor the hook lists each weight."""
    content = torch.load(tiny_run.checkpoint, weights_only=True)
    content["state_dict"] |= {f"relic.a.{number}": torch.zeros(1) for number in range(500)}
    file = str(tmp_path / "it.pth")
    torch.save(content, file)
    if use is make_runner:  # for a test
        use(tiny_run.config, tmp_path, tiny_run.data_root, load_from=file).load_or_resume()
    else:
        config = Config.fromfile(tiny_run.work_dir / tiny_run.config.name)
        use(config, file, device="cpu")
    said = [line for line in "".join(capsys.readouterr()).splitlines() if "relic" in line]
    assert len(said) == 1 and "500 weights" in said[0] and "relic.a (500)" in said[0]
    assert len(said[0]) < 200
