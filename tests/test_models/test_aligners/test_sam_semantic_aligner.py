"""SAM-DETR's aligner: RoIAlign against loops, salient points, gates."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from support.by_hand import interpolate_by_hand
from support.memories import (
    make_memory,
    make_queries,
    queries_of,
    with_other_padding,
    without_padding,
)
from support.models import randomise
from support.tolerances import assert_near

from fastdetr_mmdet.models.layers.positions import sine_embedding

DIMS, HEADS, QUERIES, ROI = 8, 2, 8, 7
PADDED = ((80, 128), (56, 88))  # 10 x 16 and 7 x 11 cells
# Centre and size, normalised: inside; all of the image; two that leave it at the upper left and at
# the lower right by more than a cell; one outside of it; a thin one; a small one; a point.
BOXES = (
    (0.4, 0.6, 0.31, 0.22),
    (0.5, 0.5, 0.99, 0.98),
    (0.02, 0.05, 0.9, 0.7),
    (0.97, 0.96, 0.6, 0.95),
    (0.999, 0.5, 1e-6, 0.5),
    (0.3, 0.5, 0.01, 0.93),
    (0.7, 0.2, 0.03, 0.02),
    (0.4, 0.4, 0.0, 0.0),
)


def build(**kwargs):
    torch.manual_seed(0)
    config = dict(type="SAMSemanticAligner", embed_dims=DIMS, num_heads=HEADS)
    return randomise(MODELS.build(config | kwargs))


def make_inputs(image_sizes=PADDED, strides=(8,)):
    queries = make_queries(2, QUERIES, DIMS, reference_dims=4)
    boxes = torch.tensor(BOXES)
    # the second image has them the other way round
    queries = queries.with_reference(torch.stack([boxes, boxes.flip(0)]).logit(eps=1e-30))
    return queries, make_memory(image_sizes, strides, DIMS)


def roi_align_by_hand(features, box, size, met):
    """Mean of samples in each of size x size cells of a box (x1, y1, x2, y2) in cells of the map.

    Cell centres are at half: the first one's is 0.5. There are ceil(side / size) samples per cell
    along a side. Samples more than a cell off the map count as 0, others are clamped to it; ``met``
    collects which kinds there were.

    Shape:
        features: (dims, h, w)
        returns: (dims, size, size)
    """
    rows = features.permute(1, 2, 0).tolist()
    h, w = len(rows), len(rows[0])
    x1, y1, x2, y2 = box
    step_x, step_y = (x2 - x1) / size, (y2 - y1) / size
    count_x, count_y = math.ceil(step_x), math.ceil(step_y)
    region = torch.zeros(features.shape[0], size, size)
    for row in range(size):
        for column in range(size):
            total = [0.0] * features.shape[0]
            for i in range(count_y):
                for j in range(count_x):
                    y = y1 - 0.5 + (row + (i + 0.5) / count_y) * step_y
                    x = x1 - 0.5 + (column + (j + 0.5) / count_x) * step_x
                    if y < -1 or y > h or x < -1 or x > w:
                        met.add("off the map")
                        continue
                    inside = min(max(y, 0), h - 1), min(max(x, 0), w - 1)
                    met.add("on it" if inside == (y, x) else "at its border")
                    sample = interpolate_by_hand(rows, *inside)
                    total = [t + s for t, s in zip(total, sample, strict=True)]
            if count_x and count_y:
                region[:, row, column] = torch.tensor(total) / (count_x * count_y)
            met.add(("samples", count_y, count_x))
    return region


def regions_by_hand(queries, memory, size=ROI):
    """For one level; boxes are normalised to the un-padded image."""
    (h, w), regions = memory.spatial_shapes[0], []
    met: set[str | tuple[str, int, int]] = set()
    for image in range(2):
        features = memory.tokens[image].T.reshape(DIMS, h, w)
        share = memory.valid_ratios[image, 0].tolist()
        for query in range(QUERIES):
            cx, cy, width, height = queries.reference[image, query].tolist()
            cx, width, cy, height = (
                cx * w * share[0],
                width * w * share[0],
                cy * h * share[1],
                height * h * share[1],
            )
            box = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
            regions.append(roi_align_by_hand(features, box, size, met))
    return torch.stack(regions), met


@pytest.mark.parametrize("size", [7, 3])
def test_regions_equal_loops(size):
    queries, memory = make_inputs()
    expected, met = regions_by_hand(queries, memory, size)
    kinds = {"on it", "at its border", "off the map", ("samples", 1, 1), ("samples", 0, 0)}
    assert met >= kinds
    assert any(kind[1] > 1 and kind[2] > 1 for kind in met if isinstance(kind, tuple))
    assert_near(build(roi_size=size).cut_out(queries.reference, memory), expected)


def test_nothing_is_read_off_the_map():
    """A map of ones is seen as ones, but where a sample is more than a cell off it."""
    queries, memory = make_inputs()
    ones = memory.with_tokens(torch.ones_like(memory.tokens))
    regions = build().cut_out(queries.reference, ones)
    whole = regions.unflatten(0, (2, QUERIES))[0, 1]
    assert_near(whole, torch.ones_like(whole))
    expected, _ = regions_by_hand(queries, ones)
    assert (expected == 0).any()
    assert_near(regions, expected)


@pytest.mark.parametrize("predict_scales", [False, True])
@pytest.mark.parametrize("size", [7, 3])
@torch.no_grad()
def test_equals_loops(size, predict_scales):
    """Points, features and embeddings at them, and gates; scales where they are asked for."""
    aligner = build(roi_size=size, predict_scales=predict_scales)
    queries, memory = make_inputs()
    aligned = aligner(queries, memory)
    assert replace(aligned, salient=None) == queries
    salient = aligned.salient

    regions = aligner.cut_out(queries.reference, memory)
    weight, bias = aligner.squeeze.weight[:, :, 0, 0], aligner.squeeze.bias
    hidden = torch.einsum("nchw,dc->ndhw", regions, weight) + bias[:, None, None]
    hidden = hidden.clamp(min=0).flatten(1)
    linears = [layer for layer in aligner.point_branch if hasattr(layer, "weight")]
    for index, linear in enumerate(linears):
        hidden = F.linear(hidden, linear.weight, linear.bias)
        hidden = hidden.clamp(min=0) if index + 1 < len(linears) else hidden
    hidden = hidden.unflatten(0, (2, QUERIES))
    gates = {
        name: F.linear(queries.content, linear.weight, linear.bias).sigmoid()
        for name, linear in dict(content=aligner.content_gate, pos=aligner.pos_gate).items()
    }
    for image in range(2):
        for query in range(QUERIES):
            region = regions[image * QUERIES + query].permute(1, 2, 0).tolist()
            cx, cy, width, height = queries.reference[image, query].tolist()
            for head in range(HEADS):
                at = (image, query, head)
                x, y = (math.tanh(v) for v in hidden[image, query, 2 * head : 2 * head + 2])
                point = torch.tensor([cx + 0.5 * width * x, cy + 0.5 * height * y])
                assert_near(salient.points[at], point)
                own = slice(head * DIMS, (head + 1) * DIMS)
                # cells of the region are centred at odd multiples of 1 / size
                row, column = ((v + 1) / 2 * size - 0.5 for v in (y, x))
                features = torch.tensor(interpolate_by_hand(region, row, column))
                assert_near(salient.content[at], features * gates["content"][image, query, own])
                embedded = sine_embedding(point, DIMS // 2)
                assert_near(salient.pos[at], embedded * gates["pos"][image, query, own])
    if predict_scales:
        assert_near(salient.scales, hidden[..., 2 * HEADS :].unflatten(-1, (HEADS, 2)))
    else:
        assert hidden.shape[-1] == 2 * HEADS
        assert salient.scales is None


def test_points_start_near_the_centre_and_stay_in_the_box():
    """The last bias starts at zero; whatever is predicted, tanh keeps the point inside."""
    torch.manual_seed(0)
    fresh = MODELS.build(dict(type="SAMSemanticAligner", embed_dims=DIMS, num_heads=HEADS))
    assert not fresh.point_branch[-1].bias.any()
    torch.nn.init.constant_(fresh.point_branch[-1].bias, 30.0)
    queries, memory = make_inputs()
    points = fresh(queries, memory).salient.points
    corner = queries.reference[..., :2] + 0.5 * queries.reference[..., 2:]
    assert_near(points, corner.unsqueeze(2).expand_as(points))


def test_of_several_levels_the_regions_are_averaged():
    aligner = build()
    queries, memory = make_inputs(strides=(8, 16, 32))
    seen = []
    aligner.squeeze.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    aligner(queries, memory)
    levels = [aligner.cut_out(queries.reference, memory.level(level)) for level in range(3)]
    assert_near(seen[0], (levels[0] + levels[1] + levels[2]) / 3)


def test_boxes_get_no_gradient_but_from_the_points():
    """RoIAlign and embedding are detached; a prior at the points moves the boxes."""
    aligner = build(predict_scales=True)
    queries, memory = make_inputs()
    logits = queries.reference_logits.clamp(-5, 5).requires_grad_()
    salient = aligner(queries.with_reference(logits), memory).salient
    total = salient.content.sum() + salient.pos.sum() + salient.scales.sum()
    (gradient,) = torch.autograd.grad(total, logits, allow_unused=True, retain_graph=True)
    assert gradient is None

    boxes = logits.sigmoid()
    (gradient,) = torch.autograd.grad(salient.points.sum(), logits)
    inside = (salient.points - boxes[..., None, :2]) / (0.5 * boxes[..., None, 2:])
    expected = torch.cat([torch.full_like(boxes[..., :2], HEADS), 0.5 * inside.sum(2)], dim=-1)
    assert_near(gradient, expected * boxes * (1 - boxes))


def test_the_position_teaches_its_gate_only():
    aligner = build()
    aligner(*make_inputs()).salient.pos.sum().backward()
    learning = {name for name, p in aligner.named_parameters() if p.grad is not None}
    assert learning == {"pos_gate.weight", "pos_gate.bias"}


@pytest.mark.parametrize("predict_scales", [False, True])
def test_gradient_reaches_all_parameters_and_the_memory(predict_scales):
    aligner = build(predict_scales=predict_scales)
    queries, memory = make_inputs()
    tokens, content = memory.tokens.requires_grad_(), queries.content.requires_grad_()
    salient = aligner(queries, memory.with_tokens(tokens)).salient
    parts = [salient.content, salient.pos] + ([salient.scales] if predict_scales else [])
    sum(part.square().sum() for part in parts).backward()
    without = [n for n, p in aligner.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    assert tokens.grad.any()
    assert content.grad.all()


def assert_alike(ours, expected):
    for name in ("content", "pos", "points", "scales"):
        assert_near(getattr(ours, name), getattr(expected, name))


def test_padding_can_be_ignored():
    """By default it is read, as in the official code; else an image is the same as without it."""
    queries, memory = make_inputs()
    reading, ignoring = (build(predict_scales=True, ignore_padding=x) for x in (False, True))
    read = reading(queries, memory).salient.content
    assert not torch.allclose(reading(queries, with_other_padding(memory)).salient.content, read)

    salient = ignoring(queries, memory).salient
    assert torch.equal(
        ignoring(queries, with_other_padding(memory)).salient.content, salient.content
    )
    alone = reading(queries_of(queries, 1), without_padding(memory, 1)).salient
    assert_alike(queries_of(queries.with_salient(salient), 1).salient, alone)


def test_degenerate_boxes_stay_finite():
    """A box that has shrunk to nothing reads nothing, and teaches no NaN."""
    aligner = build(predict_scales=True)
    queries, memory = make_inputs()
    logits = torch.full((2, QUERIES, 4), -200.0).requires_grad_()
    tokens = memory.tokens.requires_grad_()
    salient = aligner(queries.with_reference(logits), memory.with_tokens(tokens)).salient
    assert not salient.content.any()
    parts = (salient.content, salient.pos, salient.points, salient.scales)
    assert all(torch.isfinite(part).all() for part in parts)
    sum(part.sum() for part in parts).backward()
    for tensor in (logits, tokens, *aligner.parameters()):
        assert torch.isfinite(tensor.grad).all()
