"""For any outputs and objects: scipy's matching, or the documented error."""

import math
import re
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment

from fastdetr_mmdet.models.matchers import HungarianMatcher
from fastdetr_mmdet.models.matchers.hungarian_matcher import DETR_COSTS
from fastdetr_mmdet.models.matchers.match_costs import cost_terms
from fastdetr_mmdet.structures.boxes import cxcywh_to_xyxy
from fastdetr_mmdet.structures.targets import Targets

NAN, INF = math.nan, math.inf
TAME_LOGITS = [0.0, -0.0, 1.0, -4.6, 30.0, -30.0, 1e3, -1e4, 1e-30]
TAME_BOXES = [0.0, 0.5, 1.0, 0.25, 1e-3, 1e-8, -0.5, 2.0, 100.0, -0.0]
WILD = [NAN, INF, -INF, 3e38, -3e38, 1e30, 1e-45]
COSTS = [
    None,
    dict(type="FocalLossCost", weight=2.0),
    dict(type="ClassificationCost", weight=1.0),
    dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
    dict(type="IoUCost", iou_mode="giou", weight=2.0),
    dict(type="IoUCost", iou_mode="iou", weight=1.0),
    [dict(type="BBoxL1Cost", weight=1e38), dict(type="IoUCost", weight=-1.0)],
]
DOCUMENTED = re.compile(
    r"(Class index -?\d+ of image \(id \d+\) is out of range for \d+ classes; set model\.bbox_head"
    r"\.num_classes to|The network's outputs are not finite for image \(id \d+\), decoder layer \d+"
    r"; lower the|Matching cost is not finite for image \(id \d+\), (decoder layer \d+|one decoder "
    r"layer), cost term (\w+( and \w+)*|sum of all): ).*\.$"
)
SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def cases(draw, wild, fewest_queries=1):
    """Predictions, objects and costs; `wild` adds invalid numbers."""
    counts = draw(st.lists(st.integers(0, 5), min_size=1, max_size=3))
    num_layers, num_queries = draw(st.integers(1, 2)), draw(st.integers(fewest_queries, 4))
    num_classes, total = draw(st.integers(1, 3)), sum(counts)
    dtype = draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))

    def tensor(tame, *shape):
        values = tame + (WILD if wild and draw(st.booleans()) else [])
        # most entries equal, as in a diverged network
        flat = draw(st.lists(st.sampled_from(values), min_size=1, max_size=12))
        return torch.tensor(flat, dtype=torch.float32)[
            torch.arange(math.prod(shape)) % len(flat)
        ].view(shape)

    most = num_classes if wild and draw(st.booleans()) else num_classes - 1
    labels = draw(st.lists(st.integers(most - num_classes + 1, most), min_size=1, max_size=5))
    targets = Targets(
        labels=torch.tensor(labels)[torch.arange(total) % len(labels)],
        boxes=tensor(TAME_BOXES, total, 4),
        counts=tuple(counts),
        scales=torch.tensor([[64.0, 48.0, 64.0, 48.0]] * len(counts)),
        image_ids=tuple(f"id {n}" for n in range(len(counts))),
    )
    shape = num_layers, len(counts), num_queries
    logits = tensor(TAME_LOGITS, *shape, num_classes).to(dtype)
    return draw(st.sampled_from(COSTS)), logits, tensor(TAME_BOXES, *shape, 4).to(dtype), targets


def pairs_of(matches):
    return list(zip(matches.query_index.tolist(), matches.object_index.tolist(), strict=True))


def costs_of(matcher, logits, boxes, targets):
    """Columns of real objects of every term and of the sum, per image."""
    if targets.num_objects == 0:
        return [[torch.zeros(*logits.shape[:1], logits.shape[2], 0)] * len(targets.counts)]
    terms = cost_terms(matcher.match_costs, logits, boxes, targets)
    terms.append(sum(terms[1:], terms[0]))
    return [[t[:, i, :, :count] for i, count in enumerate(targets.counts)] for t in terms]


def scipys(matcher, logits, boxes, targets):
    """Solve every layer and image separately with scipy, on the matcher's costs."""
    blocks = costs_of(matcher, logits, boxes, targets)[-1]
    num_queries, starts = logits.shape[2], np.cumsum([0, *targets.counts])
    pairs = []
    for layer in range(logits.shape[0]):
        for image, start in enumerate(starts[:-1]):
            rows, columns = linear_sum_assignment(blocks[image][layer].numpy())
            first = (layer * len(targets.counts) + image) * num_queries
            pairs += zip((rows + first).tolist(), (columns + start).tolist(), strict=True)
    return pairs


def all_finite(*tensors):
    return all(bool(torch.isfinite(tensor.float()).all()) for tensor in tensors)


@settings(SETTINGS, max_examples=250)
@given(case=st.booleans().flatmap(cases))
@example(
    case=(
        None,
        torch.zeros(1, 1, 2, 1),
        torch.zeros(1, 1, 2, 4),
        Targets(torch.zeros(3).long(), torch.zeros(3, 4), (3,), torch.ones(1, 4), ("id 0",)),
    )
)
def test_scipys_matching_or_the_documented_error(case):
    costs, logits, boxes, targets = case
    matcher = HungarianMatcher(costs)
    num_classes = logits.shape[-1]
    good_labels = bool(((targets.labels >= 0) & (targets.labels < num_classes)).all())
    before = [x.clone() for x in (logits, boxes, targets.boxes, targets.labels)]
    try:
        found = pairs_of(matcher.match(logits, boxes, targets))
    except ValueError as error:
        assert DOCUMENTED.match(str(error)), str(error)
        costs = costs_of(matcher, logits, boxes, targets)
        finite = all_finite(logits, boxes, *(block for blocks in costs for block in blocks))
        assert not (good_labels and finite)
    else:
        assert good_labels and all_finite(logits, boxes)
        assert found == scipys(matcher, logits, boxes, targets)
    for now, then in zip((logits, boxes, targets.boxes, targets.labels), before, strict=True):
        torch.testing.assert_close(now, then, rtol=0, atol=0, equal_nan=True)


@settings(SETTINGS, max_examples=120)
@given(case=cases(wild=True, fewest_queries=0))
def test_one_image_in_mmdets_form(case):
    costs, logits, boxes, targets = case
    matcher = HungarianMatcher(costs)
    count, num_queries = targets.counts[0], logits.shape[2]
    own = slice(0, count)
    scale = targets.scales[0]
    predictions = InstanceData(
        scores=logits[0, 0], bboxes=cxcywh_to_xyxy(boxes[0, 0].float()) * scale
    )
    objects = InstanceData(
        labels=targets.labels[own], bboxes=cxcywh_to_xyxy(targets.boxes[own]) * scale
    )
    meta = dict(img_shape=(48, 64), img_id=0)
    try:
        result = matcher.assign(predictions, objects, meta)
    except ValueError as error:
        assert DOCUMENTED.match(str(error)), str(error)
        return
    matched = result.gt_inds[result.gt_inds > 0] - 1
    assert result.num_gts == count and len(result.gt_inds) == num_queries
    assert len(matched) == min(count, num_queries) == len(set(matched.tolist()))
    assert torch.equal(result.labels[result.gt_inds > 0], objects.labels[matched])
    assert (result.labels[result.gt_inds == 0] == -1).all()
    if count and num_queries:
        scores = predictions.scores.float()
        cost = torch.stack(
            [
                term(InstanceData(scores=scores, bboxes=predictions.bboxes), objects, meta)
                for term in matcher.match_costs
            ]
        ).sum(0)
        rows, columns = linear_sum_assignment(cost.numpy())
        assert (result.gt_inds > 0).nonzero()[:, 0].tolist() == rows.tolist()
        assert matched.tolist() == columns.tolist()


@pytest.mark.parametrize("size", [0.0, -0.5, 1e-12])
def test_objects_without_area_match_without_a_warning(size):
    """Augmentation can make such boxes after loading."""
    boxes = torch.tensor([[[[0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1]]]])
    targets = Targets(
        labels=torch.zeros(2, dtype=torch.long),
        boxes=torch.tensor([[0.8, 0.8, size, size], [0.2, 0.2, size, size]]),
        counts=(2,),
        scales=torch.ones(1, 4),
        image_ids=("id 0",),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matches = HungarianMatcher(list(DETR_COSTS)).match(torch.zeros(1, 1, 2, 1), boxes, targets)
    assert pairs_of(matches) == [(0, 1), (1, 0)]
