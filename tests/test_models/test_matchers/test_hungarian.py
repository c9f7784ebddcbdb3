"""The batched matcher equals solving each layer and image separately, with one copy.

test_faults/test_fuzz_matcher.py compares any numbers of layers, queries and objects with scipy.
"""

import pytest
import torch
from mmdet.registry import TASK_UTILS
from support.matching import (
    instances,
    make_predictions,
    make_targets,
    objects_of,
    official_cost,
)
from support.tolerances import assert_near
from support.versions import needs_half_on_cpu

from fastdetr_mmdet.models.matchers import HungarianMatcher
from fastdetr_mmdet.models.matchers.hungarian_matcher import DETR_COSTS
from fastdetr_mmdet.models.matchers.match_costs import cost_terms


def pairs_by_part(matches, targets, num_layers, num_queries):
    """{(layer, image): {(query, object of that image)}}."""
    bs = len(targets.counts)
    found = {(layer, image): set() for layer in range(num_layers) for image in range(bs)}
    for query, object_ in zip(
        matches.query_index.tolist(), matches.object_index.tolist(), strict=True
    ):
        part, own = divmod(query, num_queries)
        key = divmod(part, bs)
        found[key].add((own, object_ - objects_of(targets, key[1]).start))
    return found


def assigned_pairs(result):
    queries = (result.gt_inds > 0).nonzero()[:, 0]
    return set(zip(queries.tolist(), (result.gt_inds[queries] - 1).tolist(), strict=True))


@pytest.mark.smoke
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("counts", [(3, 1, 2), (5, 0, 0), (0, 0), (9, 20), (1,)])
def test_equals_mmdets_assigner(counts, seed):
    """Also with more objects in an image than queries (9)."""
    costs = [dict(cost) for cost in DETR_COSTS]
    assigner = TASK_UTILS.build(dict(type="HungarianAssigner", match_costs=costs))
    targets = make_targets(counts, seed=seed)
    logits, boxes = make_predictions(4, len(counts), 9, seed=seed)
    matcher = HungarianMatcher()
    found = pairs_by_part(matcher.match(logits, boxes, targets), targets, 4, 9)
    for (layer, image), pairs in found.items():
        arguments = instances(logits, boxes, targets, layer, image)
        theirs, alone = assigner.assign(*arguments), matcher.assign(*arguments)
        assert pairs == assigned_pairs(theirs) == assigned_pairs(alone)
        assert torch.equal(alone.gt_inds, theirs.gt_inds)
        assert torch.equal(alone.labels, theirs.labels)
        assert alone.num_gts == theirs.num_gts


@pytest.mark.parametrize("size", [0.3, 0.01, 1e-4])
def test_costs_are_the_official_ones_for_objects_of_any_size(size):
    """mmdet adds 1e-6 to areas, more than a pixel in normalised units."""
    targets = make_targets((4,))
    targets.boxes[:, 2:] = size
    logits, boxes = make_predictions(1, 1, 8)
    boxes[..., 2:] = size
    boxes[0, 0, :4, :2] = targets.boxes[:, :2] + size * 0.3
    ours = sum(cost_terms(HungarianMatcher().match_costs, logits, boxes, targets))[0, 0]
    expected = official_cost(logits[0, 0], boxes[0, 0], targets.labels, targets.boxes)
    # corners of small boxes have larger rounding errors
    assert_near(ours, expected, rtol=0, atol=1e-4 + 2e-6 / size)


def test_one_copy_to_the_host(monkeypatch):
    """For any number of layers and images, and no other read of a device value."""
    copies = []
    to_host = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda x, *args: copies.append(x) or to_host(x, *args))
    for name in ("item", "tolist", "nonzero", "__bool__", "__int__", "__float__"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_, name=name: pytest.fail(f"calls {name}"))
    logits, boxes = make_predictions(6, 4, 20)
    HungarianMatcher().match(logits, boxes, make_targets((3, 0, 30, 1)))
    assert len(copies) == 1


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, pytest.param(torch.float16, marks=needs_half_on_cpu)]
)
def test_costs_are_in_float32(dtype):
    """Half-precision predictions are matched in float32."""
    targets = make_targets((4, 6))
    logits, boxes = (x.to(dtype) for x in make_predictions(3, 2, 9))
    expected = HungarianMatcher().match(logits.float(), boxes.float(), targets)
    with torch.autocast("cpu", dtype=dtype):
        matches = HungarianMatcher().match(logits, boxes, targets)
    assert torch.equal(matches.query_index, expected.query_index)
    assert torch.equal(matches.object_index, expected.object_index)


@pytest.mark.parametrize("costs", [(), ("BBoxL1Cost", "DiceCost"), ("CrossEntropyLossCost",)])
def test_refuses_no_costs_and_costs_of_masks(costs):
    with pytest.raises(ValueError, match=f"match_costs .*{costs[-1] if costs else 'empty'}"):
        HungarianMatcher(match_costs=[dict(type=cost) for cost in costs])


COSTS = [
    dict(type="FocalLossCost", weight=2.0),
    dict(type="FocalLossCost", weight=1.0, alpha=0.4, gamma=1.5),
    dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
    dict(type="BBoxL1Cost", weight=5.0, box_format="xyxy"),
    dict(type="IoUCost", iou_mode="giou", weight=2.0),
    dict(type="IoUCost", iou_mode="iou", weight=3.0),
    dict(type="ClassificationCost", weight=1.0),
]


@pytest.mark.parametrize("cost", COSTS, ids=str)
@pytest.mark.parametrize("counts", [(3, 3), (4, 0, 1)], ids=str)
def test_batched_costs_are_mmdets(cost, counts):
    """In each image's own columns; others are padding."""
    targets = make_targets(counts)
    logits, boxes = make_predictions(2, len(counts), 6)
    cost = TASK_UTILS.build(cost)
    (found,) = cost_terms([cost], logits, boxes, targets)
    assert found.shape == (2, len(counts), 6, max(counts))
    for layer in range(2):
        for image, count in enumerate(counts):
            predictions, objects, meta = instances(logits, boxes, targets, layer, image)
            expected = cost(predictions, objects, meta)
            assert_near(found[layer, image, :, :count], expected, atol=2e-5)
