"""The class cost of Stable-DINO, batched and image by image."""

import pytest
import torch
from mmdet.registry import TASK_UTILS
from support.matching import giou, instances, make_predictions, make_targets, objects_of
from support.tolerances import assert_near

from fastdetr_mmdet.models.matchers.match_costs import cost_terms
from fastdetr_mmdet.structures.boxes import cxcywh_to_xyxy


def build(**kwargs):
    return TASK_UTILS.build(dict(type="PositionModulatedFocalCost", **kwargs))


def test_equals_the_papers_equation():
    targets, cost = make_targets((3, 1)), build(weight=2.0)
    logits, boxes = make_predictions(2, 2, 6)
    (batched,) = cost_terms([cost], logits, boxes, targets)
    for layer in range(2):
        for image, count in enumerate(targets.counts):
            arguments = instances(logits, boxes, targets, layer, image)
            own = objects_of(targets, image)
            scale = targets.scales[image]
            overlap = giou(
                cxcywh_to_xyxy(boxes[layer, image, :, None]) * scale,
                cxcywh_to_xyxy(targets.boxes[own]) * scale,
            )
            p = logits[layer, image].sigmoid()[:, targets.labels[own]] * ((overlap + 1) / 2).sqrt()
            expected = 2 * (0.75 * p**2 * (1 - p).log() - 0.25 * (1 - p) ** 2 * p.log())
            assert_near(cost(*arguments), expected)
            assert_near(batched[layer, image, :, :count], expected)


def test_power_0_is_mmdets_cost():
    targets = make_targets((3, 1))
    logits, boxes = make_predictions(2, 2, 6)
    plain = TASK_UTILS.build(dict(type="FocalLossCost"))
    found, expected = cost_terms([build(power=0.0), plain], logits, boxes, targets)
    assert torch.equal(found, expected)


def test_a_query_with_an_infinite_logit_costs_nan():
    logits, boxes = make_predictions(1, 1, 6)
    logits[0, 0, 2, 1] = torch.inf
    (found,) = cost_terms([build()], logits, boxes, make_targets((3,)))
    assert found[0, 0, 2].isnan().all() and found[0, 0, 3:].isfinite().all()


def test_power_out_of_range():
    with pytest.raises(ValueError, match="power=-1"):
        build(power=-1)
