"""DINO equals mmdet's with the same weights and noise."""

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from mmengine.config import Config
from support.dino import (
    CLASSES,
    DN,
    LAYERS,
    NUM_QUERIES,
    RECORDED,
    THEIRS,
    batch,
    draw,
    gradients,
    ours,
    recorded_batch,
    share_noise,
    theirs,
)
from support.models import randomise
from support.runs import ROOT
from support.tolerances import GOLDEN, assert_near

from fastdetr_mmdet.checkpoints import convert_state_dict
from fastdetr_mmdet.structures import Targets
from fastdetr_mmdet.structures.boxes import cxcywh_to_xyxy
from fastdetr_mmdet.utils.config import flatten

SETTINGS = (
    "max_epochs",
    "param_scheduler.0.milestones",
    "optim_wrapper.optimizer.lr",
    "optim_wrapper.paramwise_cfg.custom_keys.sampling_offsets.lr_mult",
    "model.num_queries",
    "model.backbone.frozen_stages",
    "model.backbone.drop_path_rate",
    "model.backbone.window_size",
    "model.neck.num_outs",
    "model.positional_encoding.temperature",
    "model.positional_encoding.offset",
    "model.bbox_head.loss_cls.loss_weight",
    "model.test_cfg.max_per_img",
)


@pytest.mark.parametrize("path", sorted(THEIRS.parent.glob("*.py")), ids=lambda path: path.stem)
def test_settings_are_mmdets(path):
    """mmdet's configs have a shipped counterpart."""
    both = Config.fromfile(path), Config.fromfile(ROOT / "configs/dino" / path.name)
    expected, found = ([flatten(c).get(key) for key in SETTINGS] for c in both)
    assert found == expected
    groups = both[0].model.dn_cfg.group_cfg
    assert both[1].model.transformer.queries.num_dn_queries == groups.num_dn_queries


@pytest.fixture(scope="module")
def pair():
    first, second = randomise(theirs(), scale=0.05), ours()
    second.load_state_dict(convert_state_dict(first.state_dict(), "mmdet"), strict=True)
    return first, second


def test_prediction_equals_mmdets_on_padded_batches(pair):
    first, second = (model.eval() for model in pair)
    inputs, samples = batch(2)
    with torch.no_grad():
        expected, found = (model._forward(inputs, samples) for model in (first, second))
    assert found[0].shape == (LAYERS, 2, NUM_QUERIES, CLASSES)
    for one, other in zip(found, expected, strict=True):
        assert other.std() > 0.1
        assert_near(one, other)


@pytest.mark.parametrize("objects", [(3, 1), (0, 2)])
def test_losses_and_gradients_equal_mmdets(pair, objects):
    first, second = (model.train() for model in pair)
    targets = Targets.from_data_samples(batch(objects)[1], "cpu")
    torch.manual_seed(7)
    noise = second.transformer.queries.noise(targets, 2 * max(1, DN // max(*targets.counts, 1)))
    share_noise(first.dn_query_generator, *noise)
    expected = first.loss(*batch(objects))
    torch.manual_seed(7)
    found = second.loss(*batch(objects))
    assert set(found) == set(expected)
    assert {"loss_cls", "d1.dn_loss_iou", "dn_loss_cls", "enc_loss_bbox"} <= set(found)
    for name, value in expected.items():
        assert_near(found[name].reshape(()), value.reshape(()), msg=lambda m, n=name: f"{n}: {m}")
    renamed, own = (gradients(*pair) for pair in ((first, expected), (second, found)))
    renamed = convert_state_dict(renamed, "mmdet")
    assert len(own) > 100
    for name, gradient in own.items():
        if name.startswith("neck.") and name.endswith("conv.bias"):
            continue  # mmdet has no bias before a norm
        scale = renamed[name].abs().max().clamp(min=1e-3)
        assert_near(gradient / scale, renamed[name] / scale, rtol=1e-3, atol=1e-3, msg=name)


def test_equals_recorded_mmdet(monkeypatch):
    """Logits and boxes of every layer and query, losses, gradients: tests/data/make_dino.py."""
    with np.load(RECORDED) as arrays:
        recorded = dict(arrays)
    shapes = zip(recorded["names"].tolist(), recorded["shapes"].tolist(), strict=True)
    weights = {name: draw(name, tuple(n for n in shape if n)) for name, shape in shapes}
    model = ours(32, 32).train()
    model.load_state_dict(convert_state_dict(weights, "mmdet"), strict=True)
    noise = [torch.from_numpy(recorded[f"noise_{what}"]) for what in ("labels", "boxes")]
    monkeypatch.setattr(model.transformer.queries, "noise", lambda targets, rows: noise)
    inputs, samples = recorded_batch()
    targets = Targets.from_data_samples(samples, "cpu")
    output = model.forward_transformer(inputs, samples, targets)
    # mmdet has the groups first
    behind = torch.tensor(recorded["logits"].shape[2] - NUM_QUERIES)
    for name, found in zip(("logits", "boxes"), model.bbox_head(output), strict=True):
        expected = torch.from_numpy(recorded[name]).roll(-int(behind), 2)
        assert expected.std() > 0.1
        assert_near(found, expected, atol=GOLDEN[name], rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    losses = model.bbox_head.loss(output, targets)
    expected = dict(zip(recorded["losses"], recorded["loss_values"], strict=True))
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(
        expected, rel=GOLDEN["losses"]
    )
    norms = convert_state_dict(
        dict(zip(recorded["names"], torch.from_numpy(recorded["norms"]), strict=True)), "mmdet"
    )
    floor = max(norms.values()) * 1e-5
    for name, gradient in gradients(model, losses).items():
        if name in norms and not (name.startswith("neck.") and name.endswith("conv.bias")):
            error = abs(gradient.float().norm() - norms[name]) / max(norms[name], floor)
            assert error < GOLDEN["gradient norms"], (name, error)


def test_noise_of_classes_and_boxes():
    queries = ours().transformer.queries
    targets = Targets.from_data_samples(batch((3, 1))[1], "cpu")
    torch.manual_seed(0)
    labels, boxes = queries.noise(targets, 2000)
    share = (labels != targets.labels).float().mean()
    assert share == pytest.approx(0.25 * (CLASSES - 1) / CLASSES, abs=0.02)
    corners, exact = cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(targets.boxes)
    moved = (corners - exact).abs() / targets.boxes[:, 2:].repeat(1, 2)
    inside = (corners > 0) & (corners < 1)  # not clipped by the image's border
    assert moved[::2].max() <= 0.5 + 1e-5
    assert moved[1::2][inside[1::2]].min() >= 0.5 - 1e-5
    assert moved.max() <= 1 + 1e-5
    assert moved[::2][inside[::2]].mean() == pytest.approx(0.25, abs=0.01)
    assert bbox_xyxy_to_cxcywh(corners).sub(boxes).abs().max() < 1e-6


def test_without_noise_the_ground_truth_comes_back():
    model = ours()
    queries = model.transformer.queries
    queries.label_noise = queries.box_noise = 0.0
    targets = Targets.from_data_samples(batch((3, 1))[1], "cpu")
    labels, boxes = queries.noise(targets, 4)
    assert torch.equal(labels, targets.labels.expand(4, -1))
    assert_near(boxes, targets.boxes.expand(4, -1, -1))
