"""SAM-DETR's aligner: regions, salient points, gates."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from mmcv.ops import roi_align
from support.by_hand import interpolate_by_hand
from support.memories import make_memory, make_queries, with_other_padding
from support.models import build_part
from support.tolerances import assert_near

from fastdetr_mmdet.models.layers.positions import sine_embedding
from fastdetr_mmdet.structures import QueryGroup
from fastdetr_mmdet.structures.boxes import cxcywh_to_xyxy

DIMS, HEADS, QUERIES, ROI = 8, 2, 8, 7
PADDED = ((80, 128), (56, 88))  # 10 x 16 and 7 x 11 cells
# Centre and size, normalised: inside; whole image; beyond the upper left and lower right by more
# than a cell; outside; thin; small; a point.
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


build = partial(build_part, "SAMSemanticAligner", embed_dims=DIMS, num_heads=HEADS)


def make_inputs(image_sizes=PADDED, strides=(8,)):
    queries = make_queries(2, QUERIES, DIMS, reference_dims=4)
    boxes = torch.tensor(BOXES)
    # reversed in the second image
    queries = queries.with_reference(torch.stack([boxes, boxes.flip(0)]).logit(eps=1e-30))
    return queries, make_memory(image_sizes, strides, DIMS)


@pytest.mark.parametrize("size", [7, 3])
def test_regions_are_those_of_the_boxes_on_the_unpadded_image(size):
    """Compared with mmcv's RoIAlign; test_ops has more boxes."""
    queries, memory = make_inputs()
    (h, w), (maps,) = memory.spatial_shapes[0], memory.maps()
    cells = memory.valid_ratios[:, 0].repeat(1, 2)[:, None] * torch.tensor([w, h, w, h])
    image = torch.arange(2.0)[:, None, None].expand(-1, QUERIES, 1)
    rois = torch.cat([image, cxcywh_to_xyxy(queries.reference) * cells], -1).flatten(0, 1)
    expected = roi_align(maps, rois, size, 1.0, 0, "avg", True)
    assert_near(build(roi_size=size).cut_out(queries.reference, memory), expected)


@pytest.mark.parametrize("predict_scales", [False, True])
@pytest.mark.parametrize("size", [7, 3])
@torch.no_grad()
def test_equals_loops(size, predict_scales):
    """Points, their features and embeddings, gates, and optional scales."""
    aligner = build(roi_size=size, predict_scales=predict_scales)
    queries, memory = make_inputs()
    aligned = aligner(queries, memory)
    assert replace(aligned, salient=None) == queries
    salient = aligned.salient

    regions = aligner.cut_out(queries.reference, memory)
    hidden = aligner.squeeze(regions).relu().flatten(1)
    hidden = aligner.point_branch(hidden).unflatten(0, (2, QUERIES))
    content_gate = aligner.content_gate(queries.content).sigmoid()
    pos_gate = aligner.pos_gate(queries.content).sigmoid()
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
                assert_near(salient.content[at], features * content_gate[image, query, own])
                embedded = sine_embedding(point, DIMS // 2)
                assert_near(salient.pos[at], embedded * pos_gate[image, query, own])
    if predict_scales:
        assert_near(salient.scales, hidden[..., 2 * HEADS :].unflatten(-1, (HEADS, 2)))
    else:
        assert hidden.shape[-1] == 2 * HEADS
        assert salient.scales is None


def test_points_start_near_the_centre_and_stay_in_the_box():
    """The last bias starts at zero; tanh keeps points inside."""
    fresh = build(scale=0.0)
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
    """RoIAlign and embedding are detached; only a prior at the points gives boxes a gradient."""
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


def test_padding_is_read_unless_it_is_to_be_ignored():
    """The default is as in the official code; test_every_part.py tests the other."""
    queries, memory = make_inputs()
    read, other = (build()(queries, m).salient for m in (memory, with_other_padding(memory)))
    assert not torch.allclose(read.content, other.content)


@torch.no_grad()
def test_denoising_queries_keep_their_class():
    """Their attention query depends on the class, beyond gates; other queries do not change."""
    aligner, (queries, memory) = build(), make_inputs()
    none = torch.tensor([], dtype=torch.long)
    groups = (QueryGroup("", 3), QueryGroup("dn", 2, pairs=(none, none)), QueryGroup("o2m", 3))
    plain = aligner(queries, memory).salient
    aligned = aligner(replace(queries, groups=groups), memory).salient
    for name in ("points", "pos"):
        assert torch.equal(getattr(aligned, name), getattr(plain, name))
    others = [0, 1, 2, 5, 6, 7]
    assert torch.equal(aligned.content[:, others], plain.content[:, others])
    own = queries.content[:, 3:5, None].expand(-1, -1, HEADS, -1)
    assert_near(aligned.content[:, 3:5] - plain.content[:, 3:5], own)


def test_degenerate_boxes_stay_finite():
    """A box without area reads nothing and gives no NaN gradient."""
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
