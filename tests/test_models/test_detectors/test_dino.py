"""DINO of our parts against mmdet's: the same function of the same weights and the same noise."""

from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from mmengine.config import Config
from support.models import make_batch, randomise
from support.runs import ROOT
from support.tolerances import assert_near

from fastdetr_mmdet.checkpoints import convert_state_dict
from fastdetr_mmdet.structures import Targets
from fastdetr_mmdet.structures.boxes import cxcywh_to_xyxy, inverse_sigmoid
from fastdetr_mmdet.utils.config import flatten

NAME = "dino/dino-4scale_r50_8xb2-12e_coco.py"
THEIRS = Path(mmdet.__file__).parent / ".mim" / "configs" / NAME
# mmdet 3.3 embeds references as models of its published width need it, later ones differently.
PUBLISHED = mmdet.__version__ < "3.4"
DIMS = 256 if PUBLISHED else 32
CLASSES, NUM_QUERIES, LAYERS, DN = 5, 8, 3, 12


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
    """Each of their configs is one of ours."""
    both = Config.fromfile(path), Config.fromfile(ROOT / "configs/dino" / path.name)
    expected, found = ([flatten(c).get(key) for key in SETTINGS] for c in both)
    assert found == expected
    groups = both[0].model.dn_cfg.group_cfg
    assert both[1].model.transformer.queries.num_dn_queries == groups.num_dn_queries


def small(config, changes):
    config = Config(dict(model=config))
    changes |= {
        "backbone.depth": 18,
        "backbone.base_channels": 8,
        "backbone.stem_channels": 16,
        "backbone.init_cfg": None,
        "neck.in_channels": [16, 32, 64],
        "neck.out_channels": DIMS,
        "neck.norm_cfg.num_groups": 4,
        "num_queries": NUM_QUERIES,
        "bbox_head.num_classes": CLASSES,
        "test_cfg.max_per_img": 20,
    }
    config.merge_from_dict({f"model.{key}": value for key, value in changes.items()})
    torch.manual_seed(0)
    return MODELS.build(config.model)


def theirs():
    layer, config = "layer_cfg", Config.fromfile(THEIRS).model
    changes = {"dn_cfg.group_cfg.num_dn_queries": DN, "positional_encoding.num_feats": DIMS // 2}
    changes["bbox_head.embed_dims"] = DIMS
    for stack in ("encoder", "decoder"):
        changes[f"{stack}.num_layers"] = LAYERS
        changes[f"{stack}.{layer}.ffn_cfg.embed_dims"] = DIMS
        changes[f"{stack}.{layer}.ffn_cfg.feedforward_channels"] = 48
        changes[f"{stack}.{layer}.self_attn_cfg.embed_dims"] = DIMS
    changes[f"decoder.{layer}.cross_attn_cfg.embed_dims"] = DIMS
    model = small(config, changes)
    torch.nn.init.normal_(model.level_embed)
    return randomise(model, scale=0.05)


def ours():
    changes = {"transformer.embed_dims": DIMS}
    changes["transformer.queries.num_dn_queries"] = DN
    changes["transformer.decoder.reference_feats"] = 128 if PUBLISHED else DIMS
    for stack in ("encoder", "decoder"):
        changes[f"transformer.{stack}.num_layers"] = LAYERS
        changes[f"transformer.{stack}.feedforward_channels"] = 48
    return small(Config.fromfile(ROOT / "configs" / NAME).model, changes)


@pytest.fixture(scope="module")
def pair():
    first, second = theirs(), ours()
    second.load_state_dict(convert_state_dict(first.state_dict(), "mmdet"), strict=True)
    return first, second


def batch(objects):
    inputs, samples = make_batch(((128, 96), (96, 128)), objects, num_classes=CLASSES)
    return inputs * 3, samples


def test_prediction_equals_mmdets_on_padded_batches(pair):
    first, second = (model.eval() for model in pair)
    inputs, samples = batch(2)
    with torch.no_grad():
        expected, found = (model._forward(inputs, samples) for model in (first, second))
    assert found[0].shape == (LAYERS, 2, NUM_QUERIES, CLASSES)
    for one, other in zip(found, expected, strict=True):
        assert other.std() > 0.1
        assert_near(one, other)


def share_noise(generator, queries, objects):
    """Let mmdet's generator use the noise that ours draws with the same seed."""
    drawn = {}

    def noise():
        if not drawn:
            targets = Targets.from_data_samples(batch(objects)[1], "cpu")
            torch.manual_seed(7)
            copies = max(1, DN // max(*targets.counts, 1))
            labels, boxes = queries.noise(targets, 2 * copies)
            drawn.update(labels=labels.flatten(), boxes=boxes.flatten(0, 1))
        return drawn

    generator.generate_dn_label_query = lambda labels, groups: generator.label_embedding(
        noise()["labels"]
    )
    generator.generate_dn_bbox_query = lambda boxes, groups: inverse_sigmoid(
        noise()["boxes"], eps=1e-3
    )


@pytest.mark.parametrize("objects", [(3, 1), (0, 2)])
def test_losses_and_gradients_equal_mmdets(pair, objects):
    first, second = (model.train() for model in pair)
    share_noise(first.dn_query_generator, second.transformer.queries, objects)
    expected = first.loss(*batch(objects))
    torch.manual_seed(7)
    found = second.loss(*batch(objects))
    assert set(found) == set(expected)
    assert {"loss_cls", "d1.dn_loss_iou", "dn_loss_cls", "enc_loss_bbox"} <= set(found)
    for name, value in expected.items():
        assert_near(found[name].reshape(()), value.reshape(()), msg=lambda m, n=name: f"{n}: {m}")
    gradients = []
    for model, losses in ((first, expected), (second, found)):
        model.zero_grad()
        sum(losses.values()).backward()
        gradients.append({k: p.grad for k, p in model.named_parameters() if p.grad is not None})
    renamed = convert_state_dict(
        {k: gradients[0].get(k, torch.zeros_like(v)) for k, v in first.state_dict().items()},
        "mmdet",
    )
    assert len(gradients[1]) > 100
    for name, gradient in gradients[1].items():
        if name.startswith("neck.") and name.endswith("conv.bias"):
            continue  # mmdet has none before a norm
        scale = renamed[name].abs().max().clamp(min=1e-3)
        assert_near(gradient / scale, renamed[name] / scale, rtol=1e-3, atol=1e-3, msg=name)


def test_noise_of_classes_and_boxes():
    queries = ours().transformer.queries
    targets = Targets.from_data_samples(batch((3, 1))[1], "cpu")
    torch.manual_seed(0)
    labels, boxes = queries.noise(targets, 2000)
    share = (labels != targets.labels).float().mean()
    assert share == pytest.approx(0.25 * (CLASSES - 1) / CLASSES, abs=0.02)
    corners, exact = cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(targets.boxes)
    moved = (corners - exact).abs() / targets.boxes[:, 2:].repeat(1, 2)
    inside = (corners > 0) & (corners < 1)  # where the image's border did not stop it
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


def test_no_object_in_the_batch(pair):
    second = pair[1].train()
    losses = second.loss(*batch((0, 0)))
    assert all(value == 0 for name, value in losses.items() if "dn_" in name)
    second.zero_grad()
    sum(losses.values()).backward()
    missing = [n for n, p in second.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


def test_matching_queries_do_not_see_the_groups(pair):
    second = pair[1].train()
    inputs, samples = batch((3, 1))
    targets = Targets.from_data_samples(samples, "cpu")
    predicted = []
    for noise in (0.0, 1.0):
        second.transformer.queries.box_noise = noise
        output = second.forward_transformer(inputs, samples, targets)
        assert output.groups[1].size == 2 * 4 * 3  # DN // 3 groups of 3 objects, twice each
        predicted.append(second.bbox_head(output))
    for before, after in zip(*predicted, strict=True):
        assert_near(before[:, :, :NUM_QUERIES], after[:, :, :NUM_QUERIES])
        assert not torch.equal(before[:, :, NUM_QUERIES:], after[:, :, NUM_QUERIES:])
