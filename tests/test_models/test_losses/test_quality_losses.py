"""Quality losses against the papers' equations, entry by entry in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps
from support.models import EMBED_DIMS, NUM_CLASSES, make_batch, randomise
from support.tolerances import assert_near

from fastdetr_mmdet.models.heads.class_loss import sum_class_loss
from fastdetr_mmdet.structures import DecoderOutput
from fastdetr_mmdet.structures.boxes import cxcywh_to_xyxy
from fastdetr_mmdet.structures.targets import Targets

LAYERS, BS, QUERIES, CLASSES = 2, 3, 4, 5
# Images with two objects, one and none; matched queries differ between layers.
PAIRS = [(0, 0, 1), (0, 0, 3), (0, 1, 2), (1, 0, 0), (1, 0, 1), (1, 1, 3)]
LABELS = [4, 0, 2, 4, 0, 2]
QUALITY = [0.8, 0.3, 0.5, 0.0, 1.0, 0.1]


def mal(p, q, best, gamma=1.5, loss_weight=1.0):
    if q is None:
        return -loss_weight * p**gamma * math.log(1 - p)
    t = q**gamma
    return -loss_weight * (t * math.log(p) + (1 - t) * math.log(1 - p))


def ia_bce(p, q, best, alpha=0.25, gamma=2.0):
    if q is None:
        return -(p**gamma) * math.log(1 - p)
    t = max(p**alpha * q ** (1 - alpha), 0.01)
    return -t * math.log(p) - (1 - t) * math.log(1 - p)


def position_supervised(p, q, best, alpha=0.25, gamma=2.0, loss_weight=6.0):
    if q is None:
        return -loss_weight * (1 - alpha) * p**gamma * math.log(1 - p)
    t = q**2 / best**2
    entropy = -t * math.log(p) - (1 - t) * math.log(1 - p)
    return loss_weight * alpha * abs(t - p) ** gamma * entropy


def varifocal(p, q, best):
    if not q:  # mmdet treats quality 0 as background
        return -0.75 * p**2 * math.log(1 - p)
    return -q * (q * math.log(p) + (1 - q) * math.log(1 - p))


def quality_focal(p, q, best):
    q = q or 0.0
    return -((q - p) ** 2) * (q * math.log(p) + (1 - q) * math.log(1 - p))


EQUATIONS = dict(
    MALLoss=mal,
    IABCELoss=ia_bce,
    PositionSupervisedLoss=position_supervised,
    VarifocalLoss=varifocal,
    QualityFocalLoss=quality_focal,
)
OPTIONS = [
    ("MALLoss", dict(gamma=0.0, loss_weight=2.0)),  # the plain cross-entropy
    ("IABCELoss", dict(alpha=0.0, gamma=0.0)),
    ("PositionSupervisedLoss", dict(alpha=0.5, gamma=1.0, loss_weight=1.0)),
]
names = pytest.mark.parametrize("name", EQUATIONS)


def arguments(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(LAYERS, BS, QUERIES, CLASSES, generator=generator, dtype=dtype)
    query_index = torch.tensor([(la * BS + im) * QUERIES + qu for la, im, qu in PAIRS])
    return logits, query_index, torch.tensor(LABELS), torch.tensor(QUALITY, dtype=dtype)


@pytest.mark.parametrize(("name", "options"), [*((n, {}) for n in EQUATIONS), *OPTIONS], ids=str)
def test_equals_the_papers_equation(name, options):
    logits, *pairs = arguments()
    expected = torch.zeros(LAYERS, dtype=torch.float64)
    known = dict(zip(PAIRS, zip(LABELS, QUALITY, strict=True), strict=True))
    for layer in range(LAYERS):
        for image in range(BS):
            best = max(
                (q for pair, (_, q) in known.items() if pair[:2] == (layer, image)), default=0
            )
            for query in range(QUERIES):
                label, quality = known.get((layer, image, query), (None, None))
                for c in range(CLASSES):
                    p = torch.sigmoid(logits[layer, image, query, c]).item()
                    given = p, quality if c == label else None, best
                    expected[layer] += EQUATIONS[name](*given, **options)
    loss = MODELS.build(dict(type=name, **options))
    assert_near(sum_class_loss(loss, logits, *pairs), expected, torch.float64)


def test_separate_classes_weight_the_other_classes_by_quality():
    logits, query_index, classes, quality = arguments()
    plain, separate = (
        MODELS.build(dict(type="MALLoss", separate_classes=x))(
            logits, query_index, classes, quality
        )
        for x in (False, True)
    )
    rows = logits.flatten(0, 2)[query_index]
    more = (quality.unsqueeze(1) - rows.sigmoid().pow(1.5)) * F.softplus(rows)
    more[torch.arange(len(classes)), classes] = 0  # an object's entry costs the same
    expected = torch.stack([more[:3].sum(), more[3:].sum()])  # three pairs per layer
    assert_near(separate - plain, expected, torch.float64)


@pytest.mark.parametrize("name", ["MALLoss", "IABCELoss", "PositionSupervisedLoss"])
def test_gradient(name):
    """An object's entry moves towards its target, others down; targets are detached."""
    logits, *pairs = arguments()
    loss = MODELS.build(dict(type=name))
    logits.requires_grad_()
    loss(logits, *pairs).sum().backward()
    is_object = torch.zeros_like(logits).flatten(0, 2)
    is_object[pairs[0], pairs[1]] = 1
    assert (logits.grad.flatten(0, 2)[is_object == 0] > 0).all()
    entries = is_object.flatten().nonzero()[:, 0]
    if name == "MALLoss":  # d softplus = p; p ** 1.5 held fixed
        p = logits.detach().sigmoid()
        found = logits.grad.flatten().index_fill(0, entries, 0)
        assert_near(found, (p**2.5).flatten().index_fill(0, entries, 0), torch.float64)
    if name == "IABCELoss":  # d BCE = p - t, t held fixed
        p = logits.detach().flatten()[pairs[0] * CLASSES + pairs[1]].sigmoid()
        t = (p**0.25 * pairs[2] ** 0.75).clamp(min=0.01)
        found = logits.grad.flatten()[pairs[0] * CLASSES + pairs[1]]
        assert_near(found, p - t, torch.float64)


@names
@pytest.mark.parametrize("objects", [(3, 2), (0, 0)])
def test_the_head_hands_over_the_iou_of_matched_boxes(name, objects):
    torch.manual_seed(0)
    config = dict(type="FastDETRHead", num_classes=NUM_CLASSES, embed_dims=EMBED_DIMS)
    head = randomise(MODELS.build(config | dict(num_pred_layer=2, loss_cls=dict(type=name))))
    hidden = torch.randn(2, 2, 10, EMBED_DIMS, requires_grad=True)
    output = DecoderOutput(hidden, tuple(torch.randn(2, 2, 10, 4)))
    targets = Targets.from_data_samples(make_batch(objects=objects)[1], "cpu")
    losses = head.loss(output, targets)
    logits, boxes = head(output)
    pairs = head.assigner.match(logits, boxes, targets)
    image = pairs.query_index // 10 % 2
    corners = [
        cxcywh_to_xyxy(x) * targets.scales[image]
        for x in (boxes.flatten(0, 2)[pairs.query_index], targets.boxes[pairs.object_index])
    ]
    quality = bbox_overlaps(*corners, is_aligned=True).detach()
    classes = targets.labels[pairs.object_index]
    expected = sum_class_loss(head.loss_cls, logits, pairs.query_index, classes, quality)
    divisor = max(sum(objects), 1)
    assert_near(losses["d0.loss_cls"], expected[0] / divisor)
    assert_near(losses["loss_cls"], expected[1] / divisor)
    # Boxes get no gradient from the class loss.
    (losses["loss_cls"] + losses["d0.loss_cls"]).backward()
    assert all(p.grad is None or not p.grad.any() for p in head.reg_branches.parameters())
    assert hidden.grad.isfinite().all()
