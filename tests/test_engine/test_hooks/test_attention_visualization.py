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


@pytest.fixture
def runner_with(monkeypatch, tiny_config_file, tmp_path, shapes):
    """Makes a runner with hooks and the backend."""
    monkeypatch.setitem(VISBACKENDS._module_dict, "Collecting", Collecting)
    ADDED.clear()

    def make(*hooks, work_dir="work", **options):
        options |= dict(custom_hooks=list(hooks))
        options |= dict(visualizer__vis_backends=[dict(type="Collecting")])
        return make_runner(tiny_config_file, tmp_path / work_dir, shapes, **options)

    return make


def hook(**kwargs):
    return dict(type="AttentionVisualizationHook", **kwargs)


def drawn():
    return [(name, step, image) for name, step, image in ADDED if name.startswith("attention_")]


def test_pictures_reach_the_backend(runner_with, tmp_path):
    """Only of every second validation and of two images."""
    runner_with(hook(num_images=2, top_k=1, interval=2), train_cfg__max_epochs=2).train()
    (*first, picture), (*second, other) = drawn()
    assert (first, second) == (["attention_0", 1], ["attention_1", 1])
    for image in (picture, other):
        assert image.dtype == np.uint8 and image.std() > 20
    assert not np.array_equal(picture, other)
    files = sorted(tmp_path.rglob("attention_*.png"))
    assert [path.name for path in files] == ["attention_0_1.png", "attention_1_1.png"]
    assert np.array_equal(cv2.imread(str(files[0]))[..., ::-1], picture)


def test_sheets_have_the_names_of_classes(runner_with, monkeypatch):
    seen = []

    def draw(inspected, layer):
        seen.append([inspected.name(query.label) for query in inspected.queries])
        return np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr("fastdetr_mmdet.visualization.draw_contact_sheet", draw)
    runner = runner_with(hook(num_images=1, top_k=3))
    assert runner.val_loop is not None  # builds the data loader
    runner.call_hook("after_val_epoch", metrics={})
    names = set(runner.val_dataloader.dataset.metainfo["classes"])
    assert len(seen) == 1 and len(seen[0]) == 3 and set(seen[0]) <= names


@pytest.mark.parametrize("start", [0, 4])
@pytest.mark.parametrize("interval, epochs", [(1, [2, 4, 6, 8, 10]), (2, [2, 6, 10]), (9, [2])])
def test_interval(interval, epochs, start, monkeypatch):
    """With validations after every second epoch; resuming after the fourth draws the same ones."""
    times = []
    own = AttentionVisualizationHook(interval=interval)
    monkeypatch.setattr(own, "_draw", lambda runner: times.append(runner._train_loop.epoch))
    loop = EpochBasedTrainLoop.__new__(EpochBasedTrainLoop)
    vars(loop).update(val_begin=1, val_interval=2)
    for loop._epoch in range(start + 2, 11, 2):
        own.after_val_epoch(SimpleNamespace(_train_loop=loop))
    assert times == [epoch for epoch in epochs if epoch > start]


def test_sharded_model_is_refused(monkeypatch):
    """A single process cannot gather the weights without the others."""
    monkeypatch.setattr(attention_visualization, "FullyShardedDataParallel", torch.nn.Linear)
    runner = SimpleNamespace(model=torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match="FullyShardedDataParallel"):
        AttentionVisualizationHook().before_train(runner)


@pytest.mark.slow
def test_run_is_the_same_with_it(runner_with):
    """Drawing does not change the trained weights."""
    states = []
    for hooks in ([hook(num_images=1, top_k=1)], []):
        runner = runner_with(*hooks, work_dir=f"work{len(hooks)}", randomness=dict(seed=1))
        runner.train()
        states.append(runner.model.state_dict())
    assert len(drawn()) == 2
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def test_layer_is_refused_before_training(runner_with):
    runner = runner_with(hook(layer=3))
    with pytest.raises(ValueError, match=r"layer=3, but the model's decoder has layers 1 to 2"):
        runner.train()
    assert runner.iter == 0


@pytest.mark.parametrize("name", ["interval", "num_images", "top_k"])
def test_arguments_are_checked(name):
    with pytest.raises(ValueError, match=rf"^AttentionVisualizationHook: {name}=0 must be"):
        AttentionVisualizationHook(**{name: 0})


def test_comes_before_the_averaged_weights_are_put_back(runner_with):
    kinds = [type(own) for own in runner_with(dict(type="EMAHook", momentum=0.01), hook()).hooks]
    assert kinds.index(AttentionVisualizationHook) < kinds.index(EMAHook)
