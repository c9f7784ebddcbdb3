"""One-to-many: Group DETR, H-DETR and MS-DETR against loops over their equations."""

from dataclasses import replace

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps
from scipy.optimize import linear_sum_assignment
from support.matching import loss_sums, objects_of, official_cost
from support.models import check_trains, make_batch, randomise, tiny_config
from support.tolerances import assert_near

from fastdetr_mmdet.models.heads import fast_detr_head
from fastdetr_mmdet.models.matchers import AssignerMatcher, HungarianMatcher
from fastdetr_mmdet.structures import Targets
from fastdetr_mmdet.structures.boxes import cxcywh_to_xyxy

INNER = {
    "points": dict(type="LearnedQueries", reference="mlp"),
    "boxes": dict(type="LearnedBoxQueries"),
    "two-stage": dict(type="TwoStageQueries", class_aware=True, supervise="selected"),
    "mixed": dict(type="TwoStageQueries", content="learned"),
}
OUTER = {
    "group": dict(type="GroupQueries", num_groups=3),
    "hybrid": dict(type="HybridQueries", num_extra=6, repeats=2, weight=0.5),
}
THRESHOLD, MOST = 0.05, 1
SCORED = dict(one_to_many=dict(type="ScoreMatcher", threshold=THRESHOLD, most=MOST))


def detector(queries, decoder=None, **head):
    config = tiny_config(
        transformer__decoder=dict(decoder or {}, type="ConditionalDecoder", num_layers=2),
        transformer__encoder__num_layers=1,
        num_queries=4,
    )
    config.transformer.queries, config.bbox_head = queries, dict(config.bbox_head, **head)
    torch.manual_seed(0)
    return randomise(MODELS.build(config)).train()


def decoded(model, objects=(2, 3)):
    inputs, samples = make_batch(objects=objects)
    targets = Targets.from_data_samples(samples, inputs.device)
    return model.forward_transformer(inputs, samples, targets), targets


def one_layer(scores, boxes, targets, repeats):
    """Match and sum image by image, with every object several times."""
    found = torch.zeros(3, dtype=scores.dtype)
    for image in range(len(targets.counts)):
        own, scale = objects_of(targets, image), targets.scales[image]
        labels, wanted = targets.labels[own].repeat(repeats), targets.boxes[own].repeat(repeats, 1)
        given = scores[image], boxes[image], labels, wanted
        pairs = list(zip(*linear_sum_assignment(official_cost(*given).detach()), strict=True))
        found = found + loss_sums(*given, scale, pairs)
    return found


def expected_losses(kind, layer, targets):
    """Losses of a layer's (logits, boxes) by name, group by group."""
    if kind == "hybrid":
        sizes, divisor = [4, 6], targets.num_objects
        names, repeats, weight = ["", "hybrid_"], [1, 2], [1, 0.5]
    else:
        sizes, divisor, names = [4] * 3, 3 * targets.num_objects, ["", "", ""]
        repeats = weight = [1, 1, 1]
    losses = {}
    parts = zip(*(x.split(sizes, 1) for x in layer), names, repeats, weight, strict=True)
    for scores, boxes, name, times, factor in parts:
        found = factor * one_layer(scores, boxes, targets, times) / (divisor * times)
        for key, value in zip(("loss_cls", "loss_bbox", "loss_iou"), found, strict=True):
            losses[name + key] = losses.get(name + key, 0) + value
    return losses


@pytest.mark.parametrize("inner", ["points", "two-stage"])
@pytest.mark.parametrize("kind", OUTER)
def test_losses_are_the_papers(kind, inner):
    model = detector(dict(OUTER[kind], queries=INNER[inner]))
    output, targets = decoded(model)
    losses = model.bbox_head.loss(output, targets)
    layers = {f"d{i}.": pair for i, pair in enumerate(zip(*model.bbox_head(output), strict=True))}
    layers[""] = layers.pop("d1.")
    if inner == "two-stage":
        layers["enc_"] = (output.proposals.cls_scores, output.proposals.boxes)
    expected = {
        prefix + name: value
        for prefix, layer in layers.items()
        for name, value in expected_losses(kind, [x.double() for x in layer], targets).items()
    }
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert_near(losses[name].double(), value, msg=name)


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("kind", OUTER)
class TestEveryKind:
    def test_matching_queries_are_those_without_groups(self, kind, inner):
        """In training other groups do not change them; in prediction there are none."""
        model = detector(dict(OUTER[kind], queries=INNER[inner]))
        output, _ = decoded(model)
        with_groups = output.hidden_states[:, :, :4]
        predicted = model.eval()._forward(*make_batch())
        plain = model.transformer.queries.queries
        others = [p for n, p in model.transformer.queries.named_parameters() if n[:7] != "queries"]
        gradients = torch.autograd.grad(with_groups.sum(), others, allow_unused=True)
        assert not any(g is not None and g.any() for g in gradients)
        model.transformer.queries = plain
        for found, expected in zip(predicted, model._forward(*make_batch()), strict=True):
            assert torch.equal(found, expected)
        assert_near(with_groups, decoded(model.train())[0].hidden_states)

    @pytest.mark.parametrize("objects", [(0, 0), (0, 2)])
    def test_every_parameter_has_a_gradient(self, kind, inner, objects):
        model = detector(dict(OUTER[kind], queries=INNER[inner]))
        check_trains(model, *make_batch(objects=objects))


@pytest.mark.parametrize("kind", OUTER)
def test_another_matcher_is_asked_for_each_part(kind):
    queries = dict(OUTER[kind], queries=INNER["boxes"])
    model = detector(queries, dict(mixed_supervision=True), train_cfg=SCORED)
    (output, targets), head = decoded(model), model.bbox_head
    expected = head.loss(output, targets)
    head.assigner, head.one_to_many = map(AssignerMatcher, (head.assigner, head.one_to_many))
    for name, value in head.loss(output, targets).items():
        assert_near(value, expected[name], msg=name)


def test_qualities_are_relative_within_a_group():
    """A loss over all queries of an image gets one group's."""
    cls = dict(type="PositionSupervisedLoss")
    model = detector(dict(OUTER["group"], queries=INNER["boxes"]), loss_cls=cls)
    output, targets = decoded(model)
    losses = model.bbox_head.loss(output, targets)
    scores, boxes = model.bbox_head(output)
    apart = [
        model.bbox_head.loss_by_feat(*one, targets)["loss_cls"][-1]
        for one in zip(scores.split(4, 2), boxes.split(4, 2), strict=True)
    ]
    assert_near(losses["loss_cls"], sum(apart) / 3)


@pytest.mark.filterwarnings("ignore:HybridQueries")
@pytest.mark.parametrize("kind", OUTER)
def test_denoising_around_groups(kind):
    """The losses of matching queries and of denoising are those without groups."""
    config = dict(OUTER[kind], queries=INNER["mixed"])
    model = detector(dict(type="DenoisingQueries", queries=config, num_dn_queries=6))
    batch = make_batch(objects=(2, 1))
    names = [group.name for group in decoded(model)[0].groups]
    assert names == ["", "hybrid", "dn"][:: 2 if kind == "group" else 1]
    torch.manual_seed(1)
    losses = model.loss(*batch)
    model.transformer.queries.queries = model.transformer.queries.queries.queries
    torch.manual_seed(1)
    for name, value in model.loss(*batch).items():
        if kind == "hybrid" or "dn_" in name:
            assert_near(losses[name], value, msg=name)


def test_weights_of_a_model_without_groups_load():
    plain = detector(INNER["mixed"]).transformer.queries.state_dict()
    config = dict(OUTER["group"], queries=INNER["mixed"])
    inner = detector(dict(type="DenoisingQueries", queries=config)).transformer.queries
    missing, unexpected = inner.load_state_dict({k: v + 1 for k, v in plain.items()}, strict=False)
    assert unexpected == [] and all("others" in key or "label" in key for key in missing)
    for key, value in inner.queries.queries.state_dict().items():
        assert torch.equal(value, plain[key] + 1)


def positives(scores, boxes, labels, wanted, scale):
    """Positive queries of MS-DETR for each object of an image, the best first."""
    corners, aim = cxcywh_to_xyxy(boxes) * scale, cxcywh_to_xyxy(wanted) * scale
    s = 0.7 * bbox_overlaps(corners, aim) + 0.3 * scores.sigmoid()[:, labels]
    best = [int(s[:, column].argmax()) for column in range(len(labels))]
    own = [int(s[query].argmax()) for query in range(len(s))]
    positive = [q for q in range(len(s)) if s[q].max() >= THRESHOLD or q in best]
    return [
        sorted((q for q in positive if own[q] == column), key=lambda q: -s[q, column])
        for column in range(len(labels))
    ]


@pytest.mark.parametrize("groups", [1, 2])
def test_mixed_supervision_is_the_papers(groups):
    config = dict(OUTER["group"], queries=INNER["two-stage"], num_groups=groups)
    model = detector(config, train_cfg=SCORED, decoder=dict(mixed_supervision=True))
    output, targets = decoded(model, (1, 4))
    losses = model.bbox_head.loss(output, targets)
    states = replace(output, hidden_states=output.one_to_many, box_logits=())
    seen = set()
    for prefix, scores, boxes in zip(("d0.", ""), *model.bbox_head(states), strict=True):
        expected = torch.zeros(3, dtype=torch.float64)
        for part in zip(scores.double().split(4, 1), boxes.double().split(4, 1), strict=True):
            for image in range(2):
                own, scale = objects_of(targets, image), targets.scales[image]
                given = *(x[image] for x in part), targets.labels[own], targets.boxes[own], scale
                ranked = positives(*given)
                seen |= set(map(len, ranked))
                pairs = [(query, c) for c, found in enumerate(ranked) for query in found[:MOST]]
                expected = expected + loss_sums(*given, pairs) / (groups * targets.num_objects)
        for name, value in zip(("cls", "bbox", "iou"), expected, strict=True):
            assert_near(losses[f"{prefix}o2m_loss_{name}"].double(), value, msg=name)
    assert {0, 1, 2} <= seen  # objects with no query, one, and more than are kept


class TestMixedSupervision:
    @pytest.mark.parametrize("objects", [(0, 0), (0, 2)])
    @pytest.mark.parametrize("checkpointed", [False, True])
    def test_every_parameter_has_a_gradient(self, checkpointed, objects):
        """With denoising around it, whose queries have no such loss."""
        queries = dict(type="DenoisingQueries", queries=INNER["mixed"])
        model = detector(queries, dict(mixed_supervision=True, with_cp=checkpointed))
        losses = check_trains(model, *make_batch(objects=objects))
        assert {"o2m_loss_cls", "d0.o2m_loss_iou", "dn_loss_cls"} <= set(losses)
        assert "o2m_dn_loss_cls" not in losses

    def test_all_groups_share_one_copy_to_the_host_and_one_sum_over_processes(self, monkeypatch):
        waits = []
        for owner, name in (
            (HungarianMatcher, "_match_all"),
            (fast_detr_head, "reduce_mean"),
        ):
            called = getattr(owner, name)
            monkeypatch.setattr(
                owner, name, lambda *args, call=called: waits.append(call) or call(*args)
            )
        queries = dict(OUTER["group"], queries=INNER["two-stage"])
        queries = dict(type="DenoisingQueries", queries=queries)
        detector(queries, dict(mixed_supervision=True)).loss(*make_batch())
        assert len(waits) == len(set(waits)) == 2

    def test_states_come_before_self_attention_and_in_training_only(self):
        model = detector(INNER["mixed"], dict(mixed_supervision=True))
        with torch.no_grad():
            output, _ = decoded(model)
            for layer in model.transformer.decoder.layers:
                layer.self_attn.out_proj.weight.zero_()
            changed, _ = decoded(model)
            assert torch.equal(changed.one_to_many[0], output.one_to_many[0])
            assert not torch.equal(changed.hidden_states[0], output.hidden_states[0])
            assert decoded(model.eval())[0].one_to_many is None
