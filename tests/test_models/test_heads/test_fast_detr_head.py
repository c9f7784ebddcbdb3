"""The head: set loss against a loop over layers and images, and what it does at the edges."""

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures.bbox import HorizontalBoxes
from support.matching import giou, instances
from support.models import EMBED_DIMS, NUM_CLASSES, NUM_QUERIES, make_batch, randomise, total
from support.tolerances import assert_near

from fastdetr_mmdet.models.matchers import HungarianMatcher
from fastdetr_mmdet.structures.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from fastdetr_mmdet.structures.targets import Targets, name_image

NUM_LAYERS = 3


def build(**kwargs):
    torch.manual_seed(0)
    config = dict(
        type="FastDETRHead",
        num_classes=NUM_CLASSES,
        embed_dims=EMBED_DIMS,
        num_pred_layer=NUM_LAYERS,
    )
    return randomise(MODELS.build(config | kwargs))


def decoded(bs=2, num_queries=NUM_QUERIES, reference_dims=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(NUM_LAYERS, bs, num_queries, EMBED_DIMS, generator=generator)
    references = torch.randn(NUM_LAYERS, bs, num_queries, reference_dims, generator=generator)
    return hidden, list(references)


def loss_by_loop(head, hidden, references, samples):
    """Sec. 3.1 of DETR with the focal loss: one layer and one image at a time."""
    logits, boxes = head(hidden, reference_logits=references)
    targets = Targets.from_data_samples(samples, hidden.device)
    num_boxes = max(targets.num_objects, 1)
    losses = {}
    for layer in range(NUM_LAYERS):
        sums = dict(loss_cls=0.0, loss_bbox=0.0, loss_iou=0.0)
        for image in range(len(samples)):
            arguments = instances(logits.detach(), boxes.detach(), targets, layer, image)
            matched = head.assigner.assign(*arguments).gt_inds
            wanted = torch.zeros(hidden.shape[2], NUM_CLASSES)
            for query in (matched > 0).nonzero()[:, 0].tolist():
                object_ = int(matched[query]) - 1
                wanted[query, arguments[1].labels[object_]] = 1
                box = boxes[layer, image, query] * targets.scales[image]
                expected = arguments[1].bboxes[object_]
                sums["loss_bbox"] += (
                    5 * (box - xyxy_to_cxcywh(expected)).abs() / targets.scales[image]
                ).sum()
                sums["loss_iou"] += 2 * (1 - giou(cxcywh_to_xyxy(box), expected))
            p = logits[layer, image].sigmoid()
            entropy = F.binary_cross_entropy_with_logits(
                logits[layer, image], wanted, reduction="none"
            )
            weight = torch.where(wanted > 0, 0.25 * (1 - p) ** 2, 0.75 * p**2)
            sums["loss_cls"] += 2 * (weight * entropy).sum()
        prefix = "" if layer == NUM_LAYERS - 1 else f"d{layer}."
        for name, value in sums.items():
            losses[prefix + name] = torch.as_tensor(value) / num_boxes
    return losses


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("objects", [(3, 2), (4, 0), (0, 0), (NUM_QUERIES + 3, 1)])
def test_loss_equals_a_loop_over_layers_and_images(objects, share):
    head = build(share_pred_layer=share)
    hidden, references = decoded()
    _, samples = make_batch(objects=objects)
    losses = head.loss(hidden, batch_data_samples=samples, reference_logits=references)
    expected = loss_by_loop(head, hidden, references, samples)
    assert set(losses) == set(expected)
    for name, value in expected.items():
        assert_near(losses[name], value, msg=lambda text, name=name: f"{name}: {text}")
    gradient, wanted = (
        torch.autograd.grad(total(values), head.cls_branches[0].weight)[0]
        for values in (losses, expected)
    )
    assert_near(gradient, wanted)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("reference_dims", [2, 4])
def test_boxes_are_relative_to_the_reference_of_their_layer(share, reference_dims):
    head = build(share_pred_layer=share)
    hidden, references = decoded(reference_dims=reference_dims)
    logits, boxes = head(hidden, reference_logits=references)
    for layer in range(NUM_LAYERS):
        branch = 0 if share else layer
        delta = head.reg_branches[branch](hidden[layer])
        delta[..., :reference_dims] += references[layer]
        assert_near(boxes[layer], delta.sigmoid())
        assert_near(logits[layer], head.cls_branches[branch](hidden[layer]))


def test_references_in_all_the_forms_that_detectors_give():
    """mmdet: one normalised tensor, or one per layer and one too many; ours: logits per layer."""
    head = build()
    hidden, references = decoded()
    same = [references[0]] * NUM_LAYERS
    _, expected = head(hidden, reference_logits=same)
    _, one = head(hidden, references[0].sigmoid())
    assert_near(one, expected)
    _, expected = head(hidden, reference_logits=references)
    _, many = head(hidden, [r.sigmoid() for r in references] + [torch.zeros(2, NUM_QUERIES, 4)])
    assert_near(many, expected)
    _, none = head(hidden)
    assert_near(none, head.reg_branches[0](hidden).sigmoid())


def test_predict_equals_the_last_layer_of_forward():
    head = build(test_cfg=dict(max_per_img=NUM_QUERIES * NUM_CLASSES), share_pred_layer=False)
    hidden, references = decoded()
    _, samples = make_batch()
    logits, boxes = (x[-1] for x in head(hidden, reference_logits=references))
    results = head.predict(hidden, batch_data_samples=samples, reference_logits=references)
    for image, result in enumerate(results):
        scores = logits[image].sigmoid()
        order = scores.flatten().argsort(descending=True)
        assert_near(result.scores, scores.flatten()[order])
        assert torch.equal(result.labels, order % NUM_CLASSES)
        h, w = samples[image].img_shape
        pixels = cxcywh_to_xyxy(boxes[image][order // NUM_CLASSES]) * torch.tensor([w, h, w, h])
        assert_near(result.bboxes, pixels.clamp(min=torch.zeros(4), max=torch.tensor([w, h] * 2)))


def test_iou_loss_sees_pixels_of_each_image():
    """GIoU would not notice, but losses of aspect ratio (CIoU) or distance (DIoU) do."""
    head = build()
    hidden, references = decoded()
    _, samples = make_batch(((64, 96), (48, 64)), objects=(1, 1))
    seen = []
    head.loss_iou.register_forward_pre_hook(lambda _, args: seen.append(args))
    head.loss(hidden, batch_data_samples=samples, reference_logits=references)
    _, wanted = seen[0]
    objects = torch.cat([sample.gt_instances.bboxes for sample in samples])
    assert_near(wanted, objects.repeat(NUM_LAYERS, 1))


@pytest.mark.parametrize("max_per_img, expected", [(3, 3), (50, 50), (51, 50), (10_000, 50)])
def test_detections_are_clamped_to_what_exists(max_per_img, expected):
    head = build(test_cfg=dict(max_per_img=max_per_img))
    hidden, references = decoded()
    results = head.predict(hidden, batch_data_samples=make_batch()[1], reference_logits=references)
    assert [len(result) for result in results] == [expected, expected]


@pytest.mark.parametrize("degenerate", ["point", "line", "whole image", "beyond the image"])
def test_degenerate_boxes_are_finite(degenerate):
    head = build()
    hidden, references = decoded()
    _, samples = make_batch(objects=2)
    bad = dict(
        point=[20.0, 30.0, 20.0, 30.0],
        line=[20.0, 30.0, 40.0, 30.0],
    ).get(degenerate, [0.0, 0.0, 96.0, 64.0])
    if degenerate == "beyond the image":
        bad = [-50.0, -60.0, 200.0, 170.0]
    samples[0].gt_instances.bboxes[0] = torch.tensor(bad)
    losses = head.loss(hidden, batch_data_samples=samples, reference_logits=references)
    total(losses).backward()
    assert torch.isfinite(total(losses))
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


def test_zero_area_predictions_on_zero_area_objects_are_finite():
    """Both areas are zero: GIoU is 0 / 0 without care."""
    head = build()
    _, samples = make_batch(((64, 64),), objects=1)
    samples[0].gt_instances.bboxes[0] = torch.tensor([32.0, 32.0, 32.0, 32.0])
    boxes = torch.tensor([0.5, 0.5, 0.0, 0.0]).repeat(1, 1, 2, 1).requires_grad_()
    logits = torch.zeros(1, 1, 2, NUM_CLASSES, requires_grad=True)
    losses = head.loss_by_feat(logits, boxes, Targets.from_data_samples(samples, "cpu"))
    total(losses).backward()
    assert torch.isfinite(total(losses))
    assert torch.isfinite(boxes.grad).all()


def test_objects_as_mmdets_box_type():
    """Pipelines may leave HorizontalBoxes where others leave tensors."""
    head = build()
    hidden, references = decoded()
    _, samples = make_batch()
    expected = head.loss(hidden, batch_data_samples=samples, reference_logits=references)
    for sample in samples:
        sample.gt_instances.bboxes = HorizontalBoxes(sample.gt_instances.bboxes)
    losses = head.loss(hidden, batch_data_samples=samples, reference_logits=references)
    assert all(torch.equal(losses[name], value) for name, value in expected.items())


def test_sigmoid_cross_entropy_is_a_loss_too():
    head = build(loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True))
    hidden, references = decoded()
    losses = head.loss(hidden, batch_data_samples=make_batch()[1], reference_logits=references)
    assert torch.isfinite(total(losses))


def test_initial_probability_and_boxes():
    torch.manual_seed(0)
    config = dict(type="FastDETRHead", num_classes=3, embed_dims=8, num_pred_layer=3)
    for share in (True, False):
        head = MODELS.build(dict(config, share_pred_layer=share))
        hidden, reference = torch.zeros(3, 1, 4, 8), torch.rand(1, 4, 2)
        logits, boxes = head(hidden, reference)
        assert_near(logits.sigmoid(), torch.full((3, 1, 4, 3), 0.01))
        assert_near(boxes[..., :2], reference.expand(3, 1, 4, 2))
        assert_near(boxes[..., 2:], torch.full((3, 1, 4, 2), 0.5))
        box = torch.rand(1, 4, 4)
        assert_near(head(hidden, box)[1], box.expand(3, 1, 4, 4))


@pytest.mark.parametrize("loss_cls", ["CrossEntropyLoss", "SeesawLoss"])
def test_refuses_softmax_losses(loss_cls):
    with pytest.raises(ValueError, match=f"loss_cls of type {loss_cls} is a softmax loss"):
        build(loss_cls=dict(type=loss_cls))


@pytest.mark.parametrize("loss_cls", ["QualityFocalLoss", "VarifocalLoss"])
def test_refuses_losses_on_other_targets_than_classes(loss_cls):
    with pytest.raises(ValueError, match=f"type {loss_cls} does not take class indices"):
        build(loss_cls=dict(type=loss_cls))


def test_refuses_no_classes():
    with pytest.raises(ValueError, match="num_classes=0 must be at least 1"):
        build(num_classes=0)


@pytest.mark.parametrize(
    "meta, name",
    [
        (dict(img_id=3, img_path="a.jpg"), "id 3, file a.jpg"),
        (dict(img_id=0), "id 0"),
        (dict(img_path="a.jpg"), "file a.jpg"),
        ({}, "id unknown"),
    ],
)
def test_image_names(meta, name):
    assert name_image(meta) == name


class _Counting(HungarianMatcher):
    """Counts what goes to the host."""

    def __init__(self):
        super().__init__()
        self.copies = []

    def match_all(self, calls):
        self.copies.append(len(calls))
        return super().match_all(calls)


class _Own(_Counting):
    """A user's own way to match."""

    def match(self, *call):
        self.copies.append("own")
        return super().match(*call)


def two_stage_losses(assigner):
    head = build(as_two_stage=True)
    head.assigner = assigner
    hidden, references = decoded()
    return head.loss(
        hidden,
        batch_data_samples=make_batch()[1],
        reference_logits=references,
        enc_outputs_class=torch.randn(2, 9, NUM_CLASSES),
        enc_outputs_coord=torch.rand(2, 9, 4),
    )


def test_one_copy_to_the_host_for_proposals_and_decoder_layers():
    counting, own = _Counting(), _Own()
    together, apart = two_stage_losses(counting), two_stage_losses(own)
    assert counting.copies == [2]
    assert own.copies == ["own", 1, "own", 1]  # a match of one's own is not passed over
    assert together.keys() == apart.keys() and len(together) == 3 * (NUM_LAYERS + 1)
    for name, value in together.items():
        assert torch.equal(value, apart[name]), name
