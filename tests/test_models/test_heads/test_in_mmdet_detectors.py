"""FastDETRHead and HungarianMatcher in mmdet's own detectors.

The detectors are mmdet's shipped configs, reduced: a small backbone, two layers, few queries and
classes. With equal weights, losses, gradients and detections must equal mmdet's.
"""

import copy
import re

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from support.models import (
    NUM_CLASSES,
    NUM_QUERIES,
    make_batch,
    randomise,
    tiny_backbone,
    total,
)
from support.tolerances import assert_near

from fastdetr_mmdet import FastDETRHead, HungarianMatcher
from fastdetr_mmdet.engine.mmdet_tools import find_script

pytestmark = pytest.mark.smoke

NUM_LAYERS = 2
SHIPPED = {
    "DETR": "detr/detr_r50_8xb2-150e_coco.py",
    "ConditionalDETR": "conditional_detr/conditional-detr_r50_8xb2-50e_coco.py",
    "DABDETR": "dab_detr/dab-detr_r50_8xb2-50e_coco.py",
    "DeformableDETR": "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py",
    "DeformableDETR, refine": "deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py",
    "DeformableDETR, refine, two stage": (
        "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py"
    ),
    # not shipped, but one option away
    "DeformableDETR, two stage": "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py",
    "DINO": "dino/dino-4scale_r50_8xb2-12e_coco.py",
}
BETWEEN = ("DeformableDETR, refine", "DeformableDETR, two stage")  # combinations of others
# Detectors that FastDETRHead can train; DINO needs other losses.
TRAINABLE = [
    pytest.param(name, marks=pytest.mark.slow if name in BETWEEN else ())
    for name in SHIPPED
    if name != "DINO"
]
# Number of objects in two images of different sizes.
BATCHES = {"both": (3, 1), "one empty": (4, 0), "all empty": (0, 0)}

each_batch = pytest.mark.parametrize("objects", BATCHES.values(), ids=BATCHES)


def shipped(name, assigner="HungarianAssigner", sigmoid=False, **head):
    """A reduced shipped model config with options of bbox_head, such as its type.

    mmdet's DETR has a softmax loss; with ``sigmoid`` it gets the loss and the costs of the others.
    """
    model = Config.fromfile(CONFIGS / SHIPPED[name]).model
    if name == "DeformableDETR, two stage":
        model.as_two_stage = True
    model.num_queries = model.test_cfg.max_per_img = NUM_QUERIES
    levels = len(model.neck.in_channels)
    model.backbone = tiny_backbone(out_indices=tuple(range(4 - levels, 4)))
    model.neck.in_channels = [8, 16, 32, 64][4 - levels :]
    for part in (model.encoder, model.decoder):
        part.num_layers = NUM_LAYERS
        part.layer_cfg.ffn_cfg.feedforward_channels = 64
    if sigmoid and name == "DETR":
        like = shipped("ConditionalDETR")
        model.bbox_head.loss_cls = like.bbox_head.loss_cls
        model.train_cfg = like.train_cfg
    model.train_cfg.assigner.type = assigner
    model.bbox_head.update(num_classes=NUM_CLASSES, **head)
    return model


def build(config, seed=0):
    """With random weights, in training mode."""
    torch.manual_seed(seed)
    model = MODELS.build(copy.deepcopy(config))
    model.init_weights()
    return randomise(model, seed, scale=0.05).train()


def copy_weights(source, target):
    """Copy weights to the same detector with this package's head."""
    names = {
        r"fc_cls\.": "cls_branches.0.",
        r"reg_ffn\.layers\.0\.0\.": "reg_branches.0.0.",
        r"reg_ffn\.layers\.1\.": "reg_branches.0.2.",
        r"fc_reg\.layers\.(\d)\.": lambda layer: f"reg_branches.0.{2 * int(layer[1])}.",  # DAB
        r"fc_reg\.": "reg_branches.0.4.",
    }
    weights = source.state_dict()
    for old, new in names.items():
        weights = {re.sub(old, new, key): value for key, value in weights.items()}
    wanted = target.state_dict()
    if type(source).__name__ == "DeformableDETR":  # stores a shared branch once per layer
        assert set(wanted) <= set(weights)
        weights = {key: weights[key] for key in wanted}
    target.load_state_dict(weights, strict=True)


def losses_of(model, batch):
    """Losses with fixed dropout and denoising noise."""
    torch.manual_seed(0)
    return model.loss(*batch)


def without_gradient(model):
    return [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]


def detections(model, **batch):
    inputs, samples = make_batch(**batch)
    with torch.no_grad():
        return [result.pred_instances for result in model.eval().predict(inputs, samples)]


# --------------------------------------------------------------------------------------------------
# The head


@pytest.fixture(scope="module", params=TRAINABLE)
def pair(request):
    """The detector with mmdet's head and assigner and with this package's, with equal weights."""
    theirs = build(shipped(request.param, sigmoid=True))
    config = shipped(request.param, "HungarianMatcher", sigmoid=True, type="FastDETRHead")
    ours = build(config, seed=1)
    copy_weights(theirs, ours)
    return theirs, ours


@each_batch
def test_losses_and_gradients_equal_those_of_mmdets_head(pair, objects):
    theirs, ours = pair
    batch = make_batch(objects=objects)
    losses = []
    for model in pair:
        model.train().zero_grad()
        losses.append(losses_of(model, batch))
        total(losses[-1]).backward()
    expected, actual = losses
    assert set(actual) == set(expected)
    for name, loss in expected.items():
        assert_near(actual[name], loss.view(()), msg=lambda text, name=name: f"{name}: {text}")
    assert_near(ours.neck.convs[0].conv.weight.grad, theirs.neck.convs[0].conv.weight.grad)
    assert without_gradient(ours) == without_gradient(theirs) == []


def test_outputs_and_detections_equal_those_of_mmdets_head(pair):
    expected, actual = (detections(model, scale_factor=(0.5, 0.25)) for model in pair)
    for ours, theirs in zip(actual, expected, strict=True):
        assert len(ours) == NUM_QUERIES
        assert_near(ours.scores, theirs.scores)
        assert torch.equal(ours.labels, theirs.labels)
        assert_near(ours.bboxes, theirs.bboxes, rtol=1e-3, atol=1e-2)
    with torch.no_grad():
        expected, actual = (model.eval()._forward(*make_batch()) for model in pair)
    assert actual[0].shape == (NUM_LAYERS, 2, NUM_QUERIES, NUM_CLASSES)
    for ours, theirs in zip(actual, expected[:2], strict=True):
        assert_near(ours, theirs)


CONFIGS = find_script("train.py").parents[1] / "configs"
FOLDERS = ("detr", "conditional_detr", "dab_detr", "deformable_detr", "dino")
ALL = sorted(path for folder in FOLDERS for path in (CONFIGS / folder).glob("*.py"))


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_every_shipped_config_takes_the_head(path):
    """Options without meaning are ignored; DETR's softmax loss is refused."""
    model = Config.fromfile(path).model
    model.bbox_head.update(type="FastDETRHead", train_cfg=model.train_cfg, test_cfg=model.test_cfg)
    if path.parent.name == "detr":
        with pytest.raises(ValueError, match=r"loss_cls .*CrossEntropyLoss.*FocalLoss"):
            MODELS.build(model.bbox_head)
        model.bbox_head.loss_cls.use_sigmoid = True
    assert MODELS.build(model.bbox_head).num_classes == 80


def test_head_takes_mmdets_assigner():
    name, batch = "DeformableDETR, refine, two stage", make_batch(objects=(4, 0))
    expected, actual = (
        losses_of(build(shipped(name, kind, sigmoid=True, type="FastDETRHead")), batch)
        for kind in ("HungarianAssigner", "HungarianMatcher")
    )
    for key, loss in expected.items():
        assert_near(actual[key], loss)


def test_dab_detr_has_one_box_branch():
    model = build(shipped("DABDETR", type="FastDETRHead", share_pred_layer=False))
    assert not hasattr(model.bbox_head, "fc_reg")
    with pytest.raises(AttributeError, match=r"bbox_head\.share_pred_layer=False"):
        model.loss(*make_batch())


def test_dino_predicts_with_the_weights_of_its_own_head_and_is_refused_when_it_trains():
    theirs = build(shipped("DINO"))
    ours = build(shipped("DINO", type="FastDETRHead"), seed=1)
    copy_weights(theirs, ours)
    with pytest.raises(ValueError, match=r"DINO.*DINOHead.*HungarianMatcher"):
        ours.loss(*make_batch())
    assert isinstance(ours.bbox_head, FastDETRHead)
    for actual, expected in zip(detections(ours), detections(theirs), strict=True):
        assert_near(actual.scores, expected.scores)
        assert_near(actual.bboxes, expected.bboxes, rtol=1e-3, atol=1e-2)


# --------------------------------------------------------------------------------------------------
# The matcher, under mmdet's heads


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in BETWEEN])
def test_losses_with_the_matcher_equal_those_with_mmdets_assigner(name):
    theirs, ours = (
        build(shipped(name, kind)) for kind in ("HungarianAssigner", "HungarianMatcher")
    )
    assert isinstance(ours.bbox_head.assigner, HungarianMatcher)
    assert not isinstance(theirs.bbox_head.assigner, HungarianMatcher)
    assert not isinstance(ours.bbox_head, FastDETRHead)
    for objects in BATCHES.values():
        batch = make_batch(objects=objects)
        expected, actual = losses_of(theirs, batch), losses_of(ours, batch)
        assert set(actual) == set(expected)
        for key, loss in expected.items():
            assert torch.isfinite(loss).all()
            assert_near(actual[key], loss, rtol=1e-5, atol=0)
