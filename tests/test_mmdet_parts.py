"""mmdet's own parts inside FastDETR: necks, losses, transforms and hooks.

Elsewhere: match costs (test_matchers), DetVisualizationHook and test-time augmentation
(test_ecosystem.py), mmdet's detectors with this package's head and matcher (test_heads).
"""

import math

import pytest
import torch
from mmdet.registry import DATASETS, HOOKS, MODELS
from mmengine.dataset import pseudo_collate
from mmengine.runner import FlexibleRunner
from support.models import (
    EMBED_DIMS,
    NUM_CLASSES,
    THREE_LEVELS,
    check_trains,
    make_batch,
    tiny_config,
    tiny_model,
)
from support.runs import CLASSES, log_rows, make_runner
from support.tolerances import assert_near

from fastdetr_mmdet import FastDETRHead
from fastdetr_mmdet.engine.distributed import FullFSDPStrategy
from fastdetr_mmdet.structures.boxes import cxcywh_to_xyxy
from fastdetr_mmdet.structures.targets import Targets

# --------------------------------------------------------------------------------------------------
# Necks

CHANNELS = THREE_LEVELS["neck__in_channels"]
NECKS = {
    "FPN": dict(type="FPN", in_channels=CHANNELS, out_channels=EMBED_DIMS, num_outs=3),
    "ChannelMapper": dict(
        type="ChannelMapper",
        in_channels=CHANNELS,
        out_channels=EMBED_DIMS,
        kernel_size=3,
        act_cfg=dict(type="ReLU"),
        norm_cfg=dict(type="GN", num_groups=4),
        num_outs=4,
    ),
    "FPN, then another": [
        dict(type="FPN", in_channels=CHANNELS, out_channels=16, num_outs=3),
        dict(type="ChannelMapper", in_channels=[16] * 3, out_channels=EMBED_DIMS, num_outs=3),
    ],
}


@pytest.mark.parametrize("neck", NECKS.values(), ids=NECKS)
def test_neck(neck):
    config = tiny_config(backbone=THREE_LEVELS["backbone"])
    config.neck = neck
    num_levels = (neck[-1] if isinstance(neck, list) else neck)["num_outs"]
    config.transformer.update(type="DeformableDetrTransformer", num_levels=num_levels, encoder=None)
    config.transformer.decoder.update(
        type="DetrDecoder", cross_attn=dict(type="DeformableAttention", num_levels=num_levels)
    )
    model = MODELS.build(config)
    check_trains(model, *make_batch())
    for sample in model.eval().predict(*make_batch()):
        assert torch.isfinite(sample.pred_instances.bboxes).all()


# --------------------------------------------------------------------------------------------------
# Losses

LOSSES = {
    "FocalLoss": dict(use_sigmoid=True, gamma=1.5, alpha=0.4, loss_weight=3.0),
    "CrossEntropyLoss": dict(use_sigmoid=True, loss_weight=0.5),
    "L1Loss": dict(loss_weight=2.0),
    "SmoothL1Loss": dict(beta=0.1, loss_weight=2.0),
    "BalancedL1Loss": dict(loss_weight=2.0),
    "IoULoss": dict(loss_weight=1.5),
    "GIoULoss": dict(loss_weight=1.5),
    "DIoULoss": dict(loss_weight=1.5),
    "CIoULoss": dict(loss_weight=1.5),
    "EIoULoss": dict(loss_weight=1.5),
}


def role(kind):
    """The head's argument for a loss."""
    if kind in ("FocalLoss", "CrossEntropyLoss"):
        return "loss_cls"
    return "loss_iou" if "IoU" in kind else "loss_bbox"


@pytest.mark.parametrize("kind", LOSSES)
def test_loss_is_mmdets(kind):
    """Value and gradient equal the loss called directly on the matched pairs."""
    config = dict(type=kind, **LOSSES[kind])
    head = FastDETRHead(NUM_CLASSES, EMBED_DIMS, **{role(kind): config})
    _, samples = make_batch(((64, 96),), objects=3)
    targets = Targets.from_data_samples(samples, "cpu")
    logits, boxes = torch.randn(1, 1, 8, NUM_CLASSES), torch.rand(1, 1, 8, 4) * 0.5 + 0.2
    for predicted in (logits, boxes):
        predicted.requires_grad_()
    matches = head.assigner.match(logits, boxes, targets)
    found, wanted = boxes[0, 0, matches.query_index], targets.boxes[matches.object_index]
    labels = torch.full((8,), NUM_CLASSES)
    labels[matches.query_index] = targets.labels[matches.object_index]
    corners = [cxcywh_to_xyxy(x) * targets.scales for x in (found, wanted)]
    pairs = dict(loss_cls=(logits[0, 0], labels), loss_bbox=(found, wanted), loss_iou=corners)
    expected = MODELS.build(config)(*pairs[role(kind)], avg_factor=3)
    assert expected > 0
    loss = head.loss_by_feat(logits, boxes, targets)[role(kind)][0]
    assert_near(loss, expected)
    of = logits if role(kind) == "loss_cls" else boxes
    gradients = (torch.autograd.grad(x, of)[0] for x in (loss, expected))
    assert_near(*gradients)


# --------------------------------------------------------------------------------------------------
# Transforms


@pytest.mark.parametrize(
    "transform",
    [
        dict(type="RandomFlip", prob=1.0, direction="horizontal"),
        dict(type="RandomResize", scale=[(64, 96), (96, 64)], keep_ratio=False),
        dict(type="PhotoMetricDistortion"),
    ],
    ids=lambda cfg: cfg["type"],
)
def test_transform(transform, shapes):
    """Images and objects change, and a training step accepts them."""
    model = tiny_model(bbox_head__num_classes=len(CLASSES))
    names = ("LoadImageFromFile", "LoadAnnotations", "Resize")
    options = ({}, dict(with_bbox=True), dict(scale=(96, 96), keep_ratio=True))
    first = [dict(more, type=name) for name, more in zip(names, options, strict=True)]
    inputs, targets = [], []
    for more in ([], [transform]):
        dataset = DATASETS.build(
            dict(
                type="CocoDataset",
                data_root=str(shapes),
                ann_file="annotations/train.json",
                data_prefix=dict(img="train/"),
                metainfo=dict(classes=CLASSES),
                pipeline=[*first, *more, dict(type="PackDetInputs")],
            )
        )
        data = model.data_preprocessor(pseudo_collate([dataset[i] for i in range(4)]), True)
        inputs.append(data["inputs"])
        targets.append(Targets.from_data_samples(data["data_samples"], "cpu"))
    assert inputs[0].shape != inputs[1].shape or not torch.equal(*inputs)
    assert torch.equal(targets[0].labels, targets[1].labels) and targets[0].num_objects
    expected = targets[0].boxes
    if transform["type"] == "RandomFlip":
        expected[:, 0] = 1 - expected[:, 0]
    # resized sides are integers, boxes are not
    assert_near(targets[1].boxes, expected, atol=0.02, rtol=0)
    check_trains(model, data["inputs"], data["data_samples"])


# --------------------------------------------------------------------------------------------------
# Hooks


def fixed(count):
    return [0.25] * count


def fitted(count):
    """HorizonEMAHook(share=0.5): a mean over half of the steps, fewer at the beginning."""
    least = 1 / max(2, 0.5 * count)
    return [least + (1 - least) * math.exp(-2 * least * step) for step in range(1, count + 1)]


@pytest.mark.parametrize("call", ["before_run", "after_load_checkpoint"])
def test_an_average_of_sharded_weights_is_refused(call):
    runner = FlexibleRunner.__new__(FlexibleRunner)
    runner.strategy = FullFSDPStrategy.__new__(FullFSDPStrategy)
    checkpoint = [{}] if call == "after_load_checkpoint" else []
    with pytest.raises(TypeError, match=r"default_hooks\.ema.*FullFSDPStrategy"):
        getattr(HOOKS.build(dict(type="HorizonEMAHook")), call)(runner, *checkpoint)


@pytest.mark.parametrize(
    ("ema", "momenta"),
    [
        (dict(type="EMAHook", momentum=0.25), fixed),
        (dict(type="HorizonEMAHook", share=0.5), fitted),
    ],
)
def test_ema_and_checking_hooks(ema, momenta, tiny_config_file, shapes, tmp_path):
    """EMA hooks average every parameter; mmdet's two check hooks pass."""
    hooks = [
        dict(ema, priority=49),
        dict(type="NumClassCheckHook"),
        dict(type="CheckInvalidLossHook", interval=1),
        dict(type="DatasetClassesCheckHook"),
    ]
    options = dict(custom_hooks=hooks, train_cfg__max_epochs=1, param_scheduler=[])
    runner = make_runner(tiny_config_file, tmp_path, shapes, **options)
    seen = []
    step = runner.model.train_step

    def watched(*args, **kwargs):
        outputs = step(*args, **kwargs)
        seen.append({name: p.detach().clone() for name, p in runner.model.named_parameters()})
        return outputs

    runner.model.train_step = watched
    runner.train()

    assert len(log_rows(tmp_path)) == len(seen) > 1
    saved = torch.load(tmp_path / "epoch_1.pth", weights_only=True)
    mean = seen[0]  # the hook's first step copies
    for weights, momentum in zip(seen[1:], momenta(len(seen))[1:], strict=True):
        mean = {name: (1 - momentum) * mean[name] + momentum * weights[name] for name in mean}
    # a checkpoint holds the mean as the model, and the trained weights in addition
    for name, weights in seen[-1].items():
        assert_near(saved["state_dict"][name], mean[name])
        assert_near(saved["ema_state_dict"][f"module.{name}"], weights)
    apart = [(mean[name] - weights).abs().max() for name, weights in seen[-1].items()]
    assert torch.stack(apart).max() > 5e-4  # far more than the tolerance
