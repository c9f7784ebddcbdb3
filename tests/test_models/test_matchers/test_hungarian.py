"""The batched matcher equals solving each layer and image separately, with one copy."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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


@pytest.mark.parametrize("seed", range(5))
def test_cost_is_the_least_of_all_matchings(seed):
    """Compared with brute force over the official codes' cost."""
    targets = make_targets((3, 2), seed=seed)
    logits, boxes = make_predictions(2, 2, 5, seed=seed)
    matches = HungarianMatcher().match(logits, boxes, targets)
    for (layer, image), pairs in pairs_by_part(matches, targets, 2, 5).items():
        own = objects_of(targets, image)
        cost = official_cost(
            logits[layer, image], boxes[layer, image], targets.labels[own], targets.boxes[own]
        )
        columns = range(targets.counts[image])
        least = min(
            itertools.permutations(range(5), len(columns)),
            key=lambda rows, cost=cost, columns=columns: sum(cost[rows, columns]),
        )
        assert pairs == set(zip(least, columns, strict=True))


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


@settings(max_examples=60, deadline=None)
@given(
    num_layers=st.integers(1, 3),
    num_queries=st.integers(1, 6),
    counts=st.lists(st.integers(0, 8), min_size=1, max_size=4),
    num_classes=st.integers(1, 4),
    seed=st.integers(0, 2**16),
)
def test_every_match_is_one_to_one(num_layers, num_queries, counts, num_classes, seed):
    targets = make_targets(counts, num_classes, seed)
    logits, boxes = make_predictions(num_layers, len(counts), num_queries, num_classes, seed)
    matches = HungarianMatcher().match(logits, boxes, targets)
    assert matches.query_index.dtype == matches.object_index.dtype == torch.long
    assert (matches.query_index.diff() > 0).all()  # by layer, image, query
    for (_, image), pairs in pairs_by_part(matches, targets, num_layers, num_queries).items():
        assert len(pairs) == min(num_queries, counts[image])
        assert len({query for query, _ in pairs}) == len(pairs)
        assert len({object_ for _, object_ in pairs}) == len(pairs)
        assert {object_ for _, object_ in pairs} <= set(range(counts[image]))


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_one_copy_from_the_gpu():
    logits, boxes = make_predictions(6, 4, 20)
    targets = make_targets((3, 0, 30, 1))
    on_gpu = replace(
        targets,
        labels=targets.labels.cuda(),
        boxes=targets.boxes.cuda(),
        scales=targets.scales.cuda(),
    )
    expected = HungarianMatcher().match(logits, boxes, targets)
    arguments = logits.cuda(), boxes.cuda(), on_gpu
    with torch.profiler.profile() as profile:
        matches = HungarianMatcher().match(*arguments)
        torch.cuda.synchronize()
    assert sum("Memcpy DtoH" in event.name for event in profile.events()) == 1
    assert torch.equal(matches.query_index.cpu(), expected.query_index)
    assert torch.equal(matches.object_index.cpu(), expected.object_index)


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


def test_takes_one_cost_as_a_dict():
    cost = dict(type="BBoxL1Cost", weight=5.0, box_format="xyxy")
    given = *make_predictions(2, 2, 9), make_targets((3, 2))
    one, listed = (HungarianMatcher(costs).match(*given) for costs in (cost, [cost]))
    assert torch.equal(one.query_index, listed.query_index)
    assert torch.equal(one.object_index, listed.object_index)


@pytest.mark.parametrize("cost", ["DiceCost", "CrossEntropyLossCost"])
def test_refuses_costs_of_masks(cost):
    with pytest.raises(ValueError, match=f"match_costs .*{cost}"):
        HungarianMatcher(match_costs=[dict(type="BBoxL1Cost"), dict(type=cost)])


def test_refuses_to_match_by_nothing():
    with pytest.raises(ValueError, match="match_costs is empty; name at least one cost"):
        HungarianMatcher(match_costs=[])


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
