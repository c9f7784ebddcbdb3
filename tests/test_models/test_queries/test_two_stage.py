"""Two-stage queries: anchors, choice and content."""

import pytest
import torch
from mmcv.ops import nms
from support.memories import in_double, make_memory
from support.models import EMBED_DIMS, NUM_CLASSES, build_part
from support.tolerances import assert_near
from torch import nn

from fastdetr_mmdet.models.heads.branches import PRIOR_LOGIT
from fastdetr_mmdet.models.queries.two_stage_queries import distinct_first
from fastdetr_mmdet.structures.boxes import cxcywh_to_xyxy

NUM_QUERIES = 6
SIZES = ((32, 48), (24, 32))


def build(num_queries=NUM_QUERIES, **kwargs):
    return build_part("TwoStageQueries", num_queries=num_queries, **kwargs)


@pytest.fixture
def branches():
    torch.manual_seed(1)
    return nn.ModuleList([nn.Linear(EMBED_DIMS, NUM_CLASSES), nn.Linear(EMBED_DIMS, 4)])


def test_anchors_are_cell_centres_of_the_unpadded_image():
    part, memory = build(box_size=0.1), make_memory(SIZES, strides=(8, 16))
    anchors, usable = part.anchors(memory)
    boxes = anchors.sigmoid()
    # second image, first level: 3 x 4 valid cells of 4 x 6; second level: 2 x 2 of 2 x 3
    first = boxes[1, :24].view(4, 6, 4)
    assert_near(first[1, 2], torch.tensor([2.5 / 4, 1.5 / 3, 0.1, 0.1]))
    second = boxes[1, 24:].view(2, 3, 4)
    assert_near(second[0, 1], torch.tensor([1.5 / 2, 0.5 / 2, 0.2, 0.2]))
    assert torch.equal(usable[..., 0], ~memory.padding_mask)
    assert torch.equal(torch.isfinite(anchors).all(-1), usable[..., 0])
    assert (anchors[~usable[..., 0]] == torch.inf).all()


def test_anchors_near_the_border_are_not_used():
    """0.5 / 60 is within 1 % of the border."""
    memory = make_memory(((8 * 60, 8 * 4),))
    _, usable = build().anchors(memory)
    usable = usable.view(60, 4)
    assert not usable[[0, 59]].any()
    assert usable[1:59].all()


@pytest.mark.parametrize("cells", [50, 100, 25, 84])
def test_what_is_usable_does_not_depend_on_the_batch(cells):
    """With 50 cells, 800 pixels at stride 16, the outermost centres lie on the limit of 1 %."""
    queries = build()
    side = cells * 8
    expected = (torch.arange(cells) + 0.5) / cells
    expected = (expected > 0.01) & (expected < 0.99)
    for width in range(side, side + 320, 8):  # beside a wider image, and alone
        memory = make_memory(((side, side), (side, width)), embed_dims=4)
        _, usable = queries.anchors(memory)
        row = usable[0].view(cells, width // 8)[cells // 2, :cells]
        assert torch.equal(row, expected), width


@pytest.mark.parametrize("class_aware", [False, True])
def test_chooses_the_best_proposals(branches, class_aware):
    part, memory = build(class_aware=class_aware), make_memory(SIZES)
    queries, proposals = part(memory, branches)
    assert proposals.cls_scores.shape == (2, memory.tokens.shape[1], NUM_CLASSES)
    assert proposals.boxes.shape == (2, memory.tokens.shape[1], 4)
    scores = proposals.cls_scores.amax(-1) if class_aware else proposals.cls_scores[..., 0]
    for image in range(2):
        best = scores[image].topk(NUM_QUERIES).indices
        # near: some CPUs round the sigmoid of a copy differently
        assert_near(queries.reference[image], proposals.boxes[image, best])


def test_content_can_be_the_token_itself(branches):
    part, memory = build(content="memory"), make_memory(SIZES)
    queries, proposals = part(memory, branches)
    _, usable = part.anchors(memory)
    tokens = part.memory_norm(part.memory_proj(memory.tokens * usable))
    best = proposals.cls_scores[..., 0].topk(NUM_QUERIES, dim=1).indices
    for image in range(2):
        assert_near(queries.content[image], tokens[image, best[image]])
    assert queries.pos.shape == queries.content.shape == (2, NUM_QUERIES, EMBED_DIMS)


@pytest.mark.parametrize("content", ["box", "memory"])
def test_what_becomes_queries_is_detached_and_proposals_are_not(branches, content):
    """Except projections of the boxes."""
    part, memory = build(content=content), make_memory(SIZES)
    queries, proposals = part(memory.with_tokens(memory.tokens.requires_grad_()), branches)
    assert not queries.reference_logits.requires_grad
    assert queries.content.requires_grad == (content == "box")
    assert queries.pos.requires_grad
    assert proposals.boxes.requires_grad
    assert proposals.cls_scores.requires_grad


def test_more_queries_than_tokens(branches):
    """All tokens become queries, also invalid proposals; results are finite."""
    part, memory = build(num_queries=1000), make_memory(SIZES)
    queries, proposals = part(memory, branches)
    assert queries.content.shape == (2, memory.tokens.shape[1], EMBED_DIMS)
    for tensor in (queries.content, queries.pos, queries.reference, proposals.cls_scores):
        assert torch.isfinite(tensor).all()
    boxes = proposals.boxes
    assert torch.isfinite(boxes).all()
    assert (boxes[memory.padding_mask] == 1).all()
    boxes.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in branches[1].parameters())


def test_learned_content_and_losses_on_the_selected_proposals(branches):
    part = build(content="learned", supervise="selected", class_aware=True)
    memory = make_memory(SIZES)
    queries, proposals = part(memory, branches)
    assert queries.pos is None
    for image in range(2):
        assert torch.equal(queries.content[image], part.query_embedding.weight)
    assert torch.equal(proposals.boxes, queries.reference)
    assert proposals.boxes.requires_grad and not queries.reference.requires_grad
    part.supervise = "all"
    _, everything = part(memory, branches)
    best = everything.cls_scores.amax(-1).topk(NUM_QUERIES).indices
    expected = everything.cls_scores.gather(1, best.unsqueeze(-1).expand(-1, -1, NUM_CLASSES))
    assert torch.equal(proposals.cls_scores, expected)


def convolved(part, name, image):
    """One image's tokens after convolutions without padding, norm and SiLU."""
    h, w, dims = image.shape
    for layer in getattr(part, name):
        weight = layer.conv.weight
        result = torch.empty_like(image)
        for row in range(h):
            for column in range(w):
                total = image.new_zeros(dims)
                for y in range(max(row - 1, 0), min(row + 2, h)):
                    for x in range(max(column - 1, 0), min(column + 2, w)):
                        total += weight[:, :, y - row + 1, x - column + 1] @ image[y, x]
                normed = (total - total.mean()) / (total.var(correction=0) + 1e-5).sqrt()
                normed = normed * layer.norm.weight + layer.norm.bias
                result[row, column] = normed * normed.sigmoid()
        image = result
    return image


@torch.no_grad()
def test_convolutions_and_distances_equal_a_loop_over_cells(branches):
    part = build(num_convs=2, box_form="distance", class_aware=True, box_size=0.1).double()
    memory, (classifier, regressor) = in_double(make_memory(SIZES)), branches.double()
    _, proposals = part(memory, branches)
    for image, (h, w) in enumerate(((4, 6), (3, 4))):
        tokens = memory.tokens[image].view(4, 6, -1)[:h, :w]
        scores = classifier(convolved(part, "cls_convs", tokens))
        sides = regressor(convolved(part, "reg_convs", tokens)).exp() * 0.1 / 2
        x = (torch.arange(w).double() + 0.5) / w
        y = ((torch.arange(h).double() + 0.5) / h).unsqueeze(1)
        left, top, right, bottom = sides.unbind(-1)
        corners = torch.stack([x - left, y - top, x + right, y + bottom], dim=-1)
        found = cxcywh_to_xyxy(proposals.boxes[image]).view(4, 6, 4)[:h, :w]
        assert_near(found, corners, torch.float64)
        assert_near(proposals.cls_scores[image].view(4, 6, -1)[:h, :w], scores, torch.float64)
    assert torch.equal(proposals.candidates, ~memory.padding_mask)
    assert_near(proposals.priors[1, 7], torch.tensor([1.5 / 4, 1.5 / 3, 1 / 4, 1 / 3]).double())


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_distinct_ones_come_first_as_after_nms(threshold):
    torch.manual_seed(0)
    clusters = torch.rand(2, 20, 1, 4) * 100
    boxes = (clusters + torch.randn(2, 20, 10, 4) * 4).flatten(1, 2)
    boxes[..., 2:] = boxes[..., :2] + 40 + torch.randn(2, 200, 2) * 3
    order, first = distinct_first(boxes, threshold)
    for image in range(2):
        kept = nms(boxes[image], -torch.arange(200.0), threshold)[1]
        assert 10 < len(kept) < 190
        rest = sorted(set(range(200)) - set(kept.tolist()))
        assert order[image].tolist() == kept.tolist() + rest
        assert first[image].tolist() == [True] * len(kept) + [False] * len(rest)


def test_distinct_proposals_become_queries_and_fill_up(branches):
    """One of overlapping boxes comes first; the best others follow, never padding."""
    options = dict(distinct=0.1, ignore_padding=True, residual_classes=True)
    part, memory = build(**options), make_memory(SIZES)
    nn.init.zeros_(branches[1].weight)
    branches[1].bias.data = torch.tensor([0.0, 0.0, 9.0, 9.0])  # all boxes have the image's size
    queries, proposals = part(memory, branches)
    for image in range(2):
        scores = proposals.cls_scores[image].amax(-1)
        scores = scores.masked_fill(memory.padding_mask[image], -1e9)
        boxes = cxcywh_to_xyxy(proposals.boxes[image])
        best = scores.topk(4 * NUM_QUERIES).indices
        kept = best[nms(boxes[best], scores[best], 0.1)[1]].tolist()
        chosen = (kept + [i for i in best.tolist() if i not in kept])[:NUM_QUERIES]
        assert_near(queries.reference[image], proposals.boxes[image, chosen])
        assert not memory.padding_mask[image, chosen].any()
        start = proposals.cls_scores[image, chosen]
        start[len(kept) :] = start[len(kept) :].clamp(max=PRIOR_LOGIT)  # suppressed proposals
        assert 0 < len(kept) < NUM_QUERIES
        assert_near(queries.class_logits[image], start)
