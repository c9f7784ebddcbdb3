"""Dense losses of proposals against mmdet's dense heads on the same predictions."""

from dataclasses import replace

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.logging import MessageHub
from support.memories import make_memory
from support.models import NUM_CLASSES, make_batch
from support.tolerances import assert_near

from fastdetr_mmdet.structures import Proposals, QueryGroup, Targets
from fastdetr_mmdet.structures.boxes import xyxy_to_cxcywh

STRIDES = (8, 16)
SIZES = ((64, 96), (48, 64))  # whole cells; the second image is padded
LEVELS = ((8, 12), (4, 6))
FOCAL = dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)
QUALITY = dict(type="QualityFocalLoss", use_sigmoid=True, beta=2.0, loss_weight=1.0)
GIOU = dict(type="GIoULoss", loss_weight=2.0)
IOU = dict(type="IoULoss", mode="square", eps=1e-16, reduction="sum", loss_weight=5.0)
ANCHORS = dict(type="AnchorGenerator", ratios=[1.0], strides=STRIDES, center_offset=0.5)
POINTS = dict(type="MlvlPointGenerator", offset=0.5, strides=STRIDES)
NARROW = dict(num_classes=NUM_CLASSES, in_channels=8, feat_channels=8, stacked_convs=1)
NORM = dict(type="GN", num_groups=2)
TRAIN = dict(allowed_border=-1, pos_weight=-1, debug=False)


def rtmdet(cells, assigner):
    head = MODELS.build(
        dict(type="RTMDetHead", **NARROW, with_objectness=False, anchor_generator=POINTS)
        | dict(bbox_coder=dict(type="DistancePointBBoxCoder"), loss_cls=QUALITY, loss_bbox=GIOU)
        | dict(train_cfg=dict(TRAIN, assigner=assigner), norm_cfg=NORM)
    )

    def loss(logits, corners, *batch):
        centre = cells[..., :2]
        distances = torch.cat([centre - corners[..., :2], corners[..., 2:] - centre], dim=-1)
        losses = head.loss_by_feat(maps(logits), maps(distances), *batch)
        return dict(loss_cls=sum(losses["loss_cls"]), loss_iou=sum(losses["loss_bbox"]))

    return loss


def tood(cells, assigner):
    assigners = dict(assigner=assigner, initial_assigner=dict(type="ATSSAssigner", topk=9))
    anchors = dict(ANCHORS, octave_base_scale=8, scales_per_octave=1)
    head = MODELS.build(
        dict(type="TOODHead", **NARROW, anchor_generator=anchors, initial_loss_cls=FOCAL)
        | dict(loss_cls=dict(QUALITY, activated=True), loss_bbox=GIOU)
        | dict(norm_cfg=NORM, train_cfg=dict(TRAIN, alpha=1, beta=6, initial_epoch=0) | assigners)
    )
    MessageHub.get_current_instance().update_info("epoch", 1)

    def loss(logits, corners, *batch):
        in_cells = corners / cells[..., 2:].repeat(1, 1, 2)
        losses = head.loss_by_feat(maps(logits.sigmoid()), maps(in_cells), *batch)
        return dict(loss_cls=sum(losses["loss_cls"]), loss_iou=sum(losses["loss_bbox"]))

    return loss


def atss(cells, assigner):
    """mmdet's box loss is weighted by centerness."""
    anchors = dict(ANCHORS, octave_base_scale=8, scales_per_octave=1)
    head = MODELS.build(
        dict(type="ATSSHead", **NARROW, anchor_generator=anchors, loss_cls=FOCAL, loss_bbox=GIOU)
        | dict(train_cfg=dict(TRAIN, assigner=assigner), norm_cfg=NORM)
    )

    def loss(logits, corners, *batch):
        centerness = maps(logits[..., :1])
        losses = head.loss_by_feat(maps(logits), maps(corners * 0), centerness, *batch)
        return dict(loss_cls=sum(losses["loss_cls"]))

    return loss


def yolox(cells, assigner):
    """mmdet's class loss uses assigned proposals only; its box loss has equal weights."""
    head = MODELS.build(
        dict(type="YOLOXHead", **NARROW, strides=STRIDES, loss_bbox=IOU)
        | dict(train_cfg=dict(assigner=assigner))
    )

    def loss(logits, corners, *batch):
        stride = cells[..., 2:]
        boxes = xyxy_to_cxcywh(corners)
        deltas = [(boxes[..., :2] - cells[..., :2]) / stride + 0.5, (boxes[..., 2:] / stride).log()]
        sure = maps(torch.full_like(logits[..., :1], 30.0))
        squared = torch.logit(logits.sigmoid() ** 2)  # its assigner uses the root
        losses = head.loss_by_feat(maps(squared), maps(torch.cat(deltas, dim=-1)), sure, *batch)
        return dict(loss_iou=losses["loss_bbox"])

    return loss


CASES = {
    "DynamicSoftLabelAssigner": (rtmdet, dict(topk=13), dict(loss_cls=QUALITY)),
    "TaskAlignedAssigner": (tood, dict(topk=13), dict(loss_cls=QUALITY)),
    "ATSSAssigner": (atss, dict(topk=9), dict(loss_cls=FOCAL)),
    "SimOTAAssigner": (yolox, dict(center_radius=2.5), dict(loss_cls=FOCAL, loss_iou=IOU)),
}


def maps(tokens):
    """(bs, num_tokens, dims) as maps."""
    levels = tokens.split([h * w for h, w in LEVELS], dim=1)
    return [x.transpose(1, 2).unflatten(2, hw) for x, hw in zip(levels, LEVELS, strict=True)]


def predictions(seed=0):
    """Logits, corners, cells and image sizes in pixels of a padded batch, and its valid cells."""
    memory = make_memory(SIZES, STRIDES)
    sides = torch.tensor([[96.0, 64.0], [64.0, 48.0]]).repeat(1, 2).unsqueeze(1)
    cells = memory.cells() * sides
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, cells.shape[1], NUM_CLASSES, generator=generator)
    noise = torch.rand(*cells.shape, generator=generator) * 2.5 + 0.2
    stride = cells[..., 2:]
    corners = torch.cat(
        [cells[..., :2] - noise[..., :2] * stride, cells[..., :2] + noise[..., 2:] * stride], -1
    )
    return logits.requires_grad_(), corners.requires_grad_(), cells, sides, ~memory.padding_mask


@pytest.mark.parametrize(
    ("name", "objects"),
    # mmdet's ATSSHead counts an image without objects as one positive
    [(name, n) for name in CASES for n in [(5, 3), (4, 0), (0, 0)][: 1 if "ATSS" in name else 3]],
)
def test_losses_equal_those_of_mmdets_head(name, objects):
    """And their gradients; mmdet's head gets the second image without its padding."""
    make_head, options, losses_of = CASES[name]
    assigner = dict(type=name, **options)
    part = MODELS.build(dict(type="DenseProposalLoss", assigner=assigner, **losses_of))
    given = logits, corners, cells, sides, valid = predictions()
    _, samples = make_batch(SIZES, objects)
    metas = [dict(s.metainfo, pad_shape=s.img_shape) for s in samples]
    torch.manual_seed(0)
    if name == "SimOTAAssigner":  # mmdet's head ignores padding
        samples, metas = samples[:1], metas[:1]
        logits, corners, cells, sides, valid = (x[:1] for x in given)
    expected = make_head(cells, assigner)(logits, corners, [s.gt_instances for s in samples], metas)
    boxes = xyxy_to_cxcywh(corners) / sides
    proposals = Proposals(
        logits,
        boxes,
        priors=cells / sides,
        candidates=valid,
        level_sizes=tuple(h * w for h, w in LEVELS),
    )
    found = part(proposals, Targets.from_data_samples(samples, "cpu"))
    for key, value in expected.items():
        assert_near(found[key], value)
        assert bool(value > 0) or sum(objects) == 0
        wanted, gradient = (
            torch.autograd.grad(x, (logits, corners), retain_graph=True, allow_unused=True)
            for x in (value, found[key])
        )
        for one, other in zip(wanted, gradient, strict=True):
            if one is not None and other is not None:
                assert_near(other, one)


def test_several_initialisers_have_the_mean_of_their_losses():
    part = MODELS.build(dict(type="DenseProposalLoss"))
    memory, (_, samples) = make_memory(SIZES, STRIDES), make_batch(SIZES, (5, 3))
    targets = Targets.from_data_samples(samples, "cpu")
    first, second = (
        Proposals(
            logits,
            xyxy_to_cxcywh(corners) / sides,
            priors=memory.cells(),
            candidates=~memory.padding_mask,
            level_sizes=tuple(memory.level_sizes),
        )
        for logits, corners, _, sides, _ in map(predictions, (0, 1))
    )
    found = part(first.with_group(second, QueryGroup("", 0)), targets)
    for name, value in part(first, targets).items():
        assert_near(found[name], (value + part(second, targets)[name]) / 2)
    # the matching refuses a wrong label; an error here would leave other processes waiting
    part(first, replace(targets, labels=targets.labels + NUM_CLASSES))
