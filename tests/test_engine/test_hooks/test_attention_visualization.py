"""AttentionVisualizationHook sends pictures to the backends at the right time."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.registry import VISBACKENDS
from mmengine.runner import EpochBasedTrainLoop
from mmengine.visualization.vis_backend import LocalVisBackend
from support.runs import make_runner

from fastdetr_mmdet.engine.hooks import AttentionVisualizationHook, attention_visualization

ADDED = []


class Collecting(LocalVisBackend):
    """A backend that collects pictures, like W&B's or TensorBoard's."""

    def add_image(self, name, image, step=0, **kwargs):
        ADDED.append((name, step, image))
        super().add_image(name, image, step, **kwargs)


@pytest.fixture(autouse=True)
def backend():
    VISBACKENDS.register_module(module=Collecting, name="Collecting")
    ADDED.clear()
    yield
    VISBACKENDS._module_dict.pop("Collecting")


def runner_with(config, tmp_path, shapes, *hooks, **options):
    return make_runner(
        config,
        tmp_path,
        shapes,
        custom_hooks=[dict(hook) for hook in hooks],
        visualizer__vis_backends=[dict(type="Collecting")],
        **options,
    )


def hook(**kwargs):
    return dict(type="AttentionVisualizationHook", **kwargs)


def test_pictures_reach_the_backend(tiny_config_file, tmp_path, shapes):
    """Only of every second validation and of two images."""
    own = hook(num_images=2, top_k=1, interval=2)
    runner = runner_with(tiny_config_file, tmp_path, shapes, own, train_cfg__max_epochs=2)
    runner.train()
    named = [(name, step) for name, step, _ in ADDED if name.startswith("attention_")]
    assert named == [("attention_0", 1), ("attention_1", 1)]
    pictures = [image for name, _, image in ADDED if name.startswith("attention_")]
    for image in pictures:
        assert image.dtype == np.uint8 and image.std() > 20
    assert not np.array_equal(*pictures)
    files = sorted(tmp_path.rglob("attention_*.png"))
    assert [path.name for path in files] == ["attention_0_1.png", "attention_1_1.png"]
    assert np.array_equal(cv2.imread(str(files[0]))[..., ::-1], pictures[0])


def test_sheets_have_the_names_of_classes(tiny_config_file, tmp_path, shapes, monkeypatch):
    seen = []

    def draw(inspected, layer):
        seen.append([inspected.name(query.label) for query in inspected.queries])
        return np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr("fastdetr_mmdet.visualization.draw_contact_sheet", draw)
    runner = runner_with(tiny_config_file, tmp_path, shapes, hook(num_images=1, top_k=3))
    assert runner.val_loop is not None  # builds the data loader
    runner.call_hook("after_val_epoch", metrics={})
    names = set(runner.val_dataloader.dataset.metainfo["classes"])
    assert len(seen) == 1 and len(seen[0]) == 3 and set(seen[0]) <= names


@pytest.mark.parametrize("start", [0, 4])
@pytest.mark.parametrize("interval, drawn", [(1, [2, 4, 6, 8, 10]), (2, [2, 6, 10]), (9, [2])])
def test_interval(interval, drawn, start, monkeypatch):
    """With validations after every second epoch; resuming after the fourth draws the same ones."""
    times = []
    own = AttentionVisualizationHook(interval=interval)
    monkeypatch.setattr(own, "_draw", lambda runner: times.append(runner._train_loop.epoch))
    loop = EpochBasedTrainLoop.__new__(EpochBasedTrainLoop)
    vars(loop).update(val_begin=1, val_interval=2)
    for loop._epoch in range(start + 2, 11, 2):
        own.after_val_epoch(SimpleNamespace(_train_loop=loop))
    assert times == [epoch for epoch in drawn if epoch > start]


def test_sharded_model_is_refused(monkeypatch):
    """A single process cannot gather the weights without the others."""
    monkeypatch.setattr(attention_visualization, "FullyShardedDataParallel", torch.nn.Linear)
    runner = SimpleNamespace(model=torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match="FullyShardedDataParallel"):
        AttentionVisualizationHook().before_train(runner)


@pytest.mark.slow
def test_run_is_the_same_with_it(tiny_config_file, tmp_path, shapes):
    """Drawing does not change the trained weights."""
    states = []
    for name, hooks in (("with", [hook(num_images=1, top_k=1)]), ("without", [])):
        options = dict(train_cfg__max_epochs=2, randomness=dict(seed=1))
        runner = runner_with(tiny_config_file, tmp_path / name, shapes, *hooks, **options)
        runner.train()
        states.append(runner.model.state_dict())
    assert len([1 for name, *_ in ADDED if name.startswith("attention_")]) == 2
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def test_layer_is_refused_before_training(tiny_config_file, tmp_path, shapes):
    runner = runner_with(tiny_config_file, tmp_path, shapes, hook(layer=3))
    with pytest.raises(ValueError, match=r"layer=3, but the model's decoder has layers 1 to 2"):
        runner.train()
    assert runner.iter == 0


@pytest.mark.parametrize("name", ["interval", "num_images", "top_k"])
def test_arguments_are_checked(name):
    with pytest.raises(ValueError, match=rf"^AttentionVisualizationHook: {name}=0 must be"):
        AttentionVisualizationHook(**{name: 0})


def test_comes_before_the_averaged_weights_are_put_back(tiny_config_file, tmp_path, shapes):
    ema = dict(type="EMAHook", momentum=0.01)
    runner = runner_with(tiny_config_file, tmp_path, shapes, ema, hook())
    kinds = [type(registered) for registered in runner.hooks]
    assert kinds.index(AttentionVisualizationHook) < kinds.index(EMAHook)
