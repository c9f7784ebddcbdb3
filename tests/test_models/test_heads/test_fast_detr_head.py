"""The head: set loss against a loop over layers and images, and edge cases."""

from dataclasses import replace

import pytest
import torch
from mmcv.ops import batched_nms
from mmdet.structures.bbox import HorizontalBoxes
from support.matching import instances, loss_sums, objects_of
from support.models import EMBED_DIMS, NUM_CLASSES, NUM_QUERIES, build_part, make_batch, total
from support.tolerances import assert_near

from fastdetr_mmdet.models.matchers import HungarianMatcher, Matches
from fastdetr_mmdet.structures import DecoderOutput, Proposals
from fastdetr_mmdet.structures.boxes import cxcywh_to_xyxy
from fastdetr_mmdet.structures.targets import Targets, name_image

NUM_LAYERS = 3


def build(**kwargs):
    config = dict(num_classes=NUM_CLASSES, num_pred_layer=NUM_LAYERS)
    return build_part("FastDETRHead", **(config | kwargs))


def decoded(bs=2, num_queries=NUM_QUERIES, reference_dims=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(NUM_LAYERS, bs, num_queries, EMBED_DIMS, generator=generator)
    references = torch.randn(NUM_LAYERS, bs, num_queries, reference_dims, generator=generator)
    return DecoderOutput(hidden, tuple(references))


def loss(head, output, samples):
    return head.loss(output, Targets.from_data_samples(samples, "cpu"))


def loss_by_loop(head, output, samples):
    """DETR's Sec. 3.1 with the focal loss, layer by layer and image by image."""
    logits, boxes = head(output)
    targets = Targets.from_data_samples(samples, "cpu")
    losses = {}
    for layer in range(NUM_LAYERS):
        sums = torch.zeros(3)
        for image in range(len(samples)):
            arguments = instances(logits.detach(), boxes.detach(), targets, layer, image)
            matched = head.assigner.assign(*arguments).gt_inds.tolist()
            pairs = [(query, found - 1) for query, found in enumerate(matched) if found]
            own, scale = objects_of(targets, image), targets.scales[image]
            objects = targets.labels[own], targets.boxes[own], scale
            sums = sums + loss_sums(logits[layer, image], boxes[layer, image], *objects, pairs)
        prefix = "" if layer == NUM_LAYERS - 1 else f"d{layer}."
        for name, value in zip(("cls", "bbox", "iou"), sums, strict=True):
            losses[f"{prefix}loss_{name}"] = value / max(targets.num_objects, 1)
    return losses


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("objects", [(3, 2), (4, 0), (0, 0), (NUM_QUERIES + 3, 1)])
def test_loss_equals_a_loop_over_layers_and_images(objects, share):
    head = build(share_pred_layer=share)
    output = decoded()
    _, samples = make_batch(objects=objects)
    losses = loss(head, output, samples)
    expected = loss_by_loop(head, output, samples)
    assert set(losses) == set(expected)
    for name, value in expected.items():
        assert_near(losses[name], value, msg=lambda text, name=name: f"{name}: {text}")
    gradient, wanted = (
        torch.autograd.grad(total(values), head.cls_branches[0].weight)[0]
        for values in (losses, expected)
    )
    assert_near(gradient, wanted)


def test_predict_equals_the_last_layer_of_forward():
    head = build(test_cfg=dict(max_per_img=NUM_QUERIES * NUM_CLASSES), share_pred_layer=False)
    output = decoded()
    _, samples = make_batch()
    logits, boxes = (x[-1] for x in head(output))
    results = head.predict(output, samples)
    for image, result in enumerate(results):
        scores = logits[image].sigmoid()
        order = scores.flatten().argsort(descending=True)
        assert_near(result.scores, scores.flatten()[order])
        assert torch.equal(result.labels, order % NUM_CLASSES)
        h, w = samples[image].img_shape
        pixels = cxcywh_to_xyxy(boxes[image][order // NUM_CLASSES]) * torch.tensor([w, h, w, h])
        assert_near(result.bboxes, pixels.clamp(min=torch.zeros(4), max=torch.tensor([w, h] * 2)))


def test_iou_loss_sees_pixels_of_each_image():
    """GIoU does not depend on it, but losses with aspect ratio (CIoU) or distance (DIoU) do."""
    head = build()
    output = decoded()
    _, samples = make_batch(((64, 96), (48, 64)), objects=(1, 1))
    seen = []
    head.loss_iou.register_forward_pre_hook(lambda _, args: seen.append(args))
    loss(head, output, samples)
    _, wanted = seen[0]
    objects = torch.cat([sample.gt_instances.bboxes for sample in samples])
    assert_near(wanted, objects.repeat(NUM_LAYERS, 1))


@pytest.mark.parametrize("max_per_img, expected", [(3, 3), (50, 50), (51, 50), (10_000, 50)])
def test_detections_are_clamped_to_what_exists(max_per_img, expected):
    head = build(test_cfg=dict(max_per_img=max_per_img))
    output = decoded()
    results = head.predict(output, make_batch()[1])
    assert [len(result) for result in results] == [expected, expected]


@pytest.mark.parametrize(
    "box",
    [(20, 30, 20, 30), (20, 30, 40, 30), (0, 0, 96, 64), (-50, -60, 200, 170)],
    ids=["point", "line", "whole image", "beyond the image"],
)
def test_degenerate_boxes_are_finite(box):
    """Also if prediction and object are the same point, where GIoU is 0 / 0."""
    head, (_, samples) = build(), make_batch(objects=2)
    samples[0].gt_instances.bboxes[0] = torch.tensor(box)
    targets = Targets.from_data_samples(samples, "cpu")
    boxes = torch.cat([targets.boxes[[0, 0]][None], targets.boxes[[2, 2]][None]]).clone()[None]
    logits = torch.zeros(1, 2, 2, NUM_CLASSES)
    boxes, logits = boxes.requires_grad_(), logits.requires_grad_()
    losses = head.loss_by_feat(logits, boxes, targets)
    total(losses).backward()
    assert torch.isfinite(total(losses))
    assert torch.isfinite(boxes.grad).all()
    assert torch.isfinite(logits.grad).all()


def test_objects_as_mmdets_box_type():
    """Pipelines may give HorizontalBoxes instead of tensors."""
    head = build()
    output = decoded()
    _, samples = make_batch()
    expected = loss(head, output, samples)
    for sample in samples:
        sample.gt_instances.bboxes = HorizontalBoxes(sample.gt_instances.bboxes)
    losses = loss(head, output, samples)
    assert all(torch.equal(losses[name], value) for name, value in expected.items())


WITH_SIGMOID = [
    dict(type="FocalLoss", gamma=1.0, alpha=0.5),
    dict(type="CrossEntropyLoss", use_sigmoid=True, bg_cls_weight=0.1),
]
REFUSED = [
    dict(type="CrossEntropyLoss"),  # softmax
    dict(type="CrossEntropyLoss", bg_cls_weight=0.1, class_weight=1.0),  # of mmdet's DETR
    dict(type="SeesawLoss"),
    dict(type="GaussianFocalLoss"),  # other targets than classes
    dict(type="EQLV2Loss"),
    dict(type="MSELoss"),
    dict(type="FocalLoss", activated=True),  # probabilities instead of logits
]


@pytest.mark.parametrize("num_classes", [1, 2, NUM_CLASSES])
@pytest.mark.parametrize("loss_cls", WITH_SIGMOID + REFUSED, ids=str)
@pytest.mark.filterwarnings("ignore:Using a target size")  # mmdet's MSELoss
def test_takes_sigmoid_losses_only(loss_cls, num_classes):
    if loss_cls in WITH_SIGMOID:
        build(loss_cls=loss_cls, num_classes=num_classes)
        return
    with pytest.raises(ValueError, match=rf"bbox_head\.loss_cls .*{loss_cls['type']}.*FocalLoss"):
        build(loss_cls=loss_cls, num_classes=num_classes)


def test_weights_of_classes_may_be_zero():
    weights = [0.0] + [1.0] * (NUM_CLASSES - 1)
    build(loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True, class_weight=weights))


def test_options_of_another_loss_are_explained():
    """For example if a config replaces its base's FocalLoss."""
    with pytest.raises(TypeError, match=r"loss_cls of type MALLoss.*use_sigmoid.*_delete_=True"):
        build(loss_cls=dict(type="MALLoss", use_sigmoid=True))


@pytest.mark.parametrize(
    "options, named",
    [
        (
            dict(test_cfg=dict(nms_pre=1000, max_per_img=3)),
            ["test_cfg", "nms_pre", "score_thr"],
        ),
        (dict(test_cfg=dict(seperate_sizes=True)), ["seperate_sizes", "separate_sizes"]),
        (dict(test_cfg=dict(nms=dict(type="soft_nms"))), ["test_cfg.nms", "soft_nms", "'nms'"]),
        (dict(test_cfg=dict(nms=True)), ["test_cfg.nms", "True"]),
        (
            dict(train_cfg=dict(assigner=dict(type="ATSSAssigner", topk=9))),
            ["train_cfg.assigner", "ATSSAssigner", "proposal_loss"],
        ),
        (dict(train_cfg=dict(sampler=None)), ["train_cfg", "sampler", "assigner"]),
    ],
)
def test_refuses_options_that_nothing_reads(options, named):
    with pytest.raises(ValueError) as error:
        build(**options)
    assert [name for name in named if name not in str(error.value)] == []


def test_score_thr_drops_what_scores_less():
    output, samples = decoded(), make_batch()[1]
    every = build(test_cfg=dict(max_per_img=20)).predict(output, samples)
    threshold = every[0].scores[7].item()
    found = build(test_cfg=dict(max_per_img=20, score_thr=threshold)).predict(output, samples)
    for image in range(2):
        kept = every[image].scores > threshold
        assert torch.equal(found[image].bboxes, every[image].bboxes[kept])
        assert torch.equal(found[image].labels, every[image].labels[kept])
    assert len(found[0]) == 7


@torch.no_grad()
def test_nms_is_mmcv_s_within_each_class():
    output, samples = decoded(), make_batch()[1]
    nms = dict(type="nms", iou_threshold=0.3)
    every = build(test_cfg=dict(max_per_img=1000)).predict(output, samples)
    found = build(test_cfg=dict(max_per_img=1000, nms=nms)).predict(output, samples)
    for plain, own in zip(every, found, strict=True):
        kept = batched_nms(plain.bboxes, plain.scores, plain.labels, nms)[1]
        assert 10 < len(kept) < len(plain)
        for key in ("bboxes", "scores", "labels"):
            torch.testing.assert_close(own[key], plain[key][kept])


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
    """Counts copies to the host."""

    copies = 0

    def _match_all(self, calls):
        self.copies += 1
        return super()._match_all(calls)


class _Own(_Counting):
    """A user's matcher."""

    own = 0

    def match(self, *call):
        self.own += 1
        return super().match(*call)


def two_stage_losses(assigner):
    head = build(as_two_stage=True)
    head.assigner = assigner
    proposals = Proposals(torch.randn(2, 9, NUM_CLASSES), torch.rand(2, 9, 4))
    return loss(head, replace(decoded(), proposals=proposals), make_batch()[1])


def test_one_copy_to_the_host_for_proposals_and_decoder_layers():
    counting, own = _Counting(), _Own()
    together, apart = two_stage_losses(counting), two_stage_losses(own)
    assert counting.copies == 1
    assert (own.own, own.copies) == (2, 2)  # its match is called
    assert together.keys() == apart.keys() and len(together) == 3 * (NUM_LAYERS + 1)
    for name, value in together.items():
        assert torch.equal(value, apart[name]), name


class _Uneven(HungarianMatcher):
    """Drops the first layer's pairs, and reverses the others."""

    def match(self, cls_scores, *call):
        found = super().match(cls_scores, *call)
        later = (found.query_index >= cls_scores[0, ..., 0].numel()).nonzero()[:, 0].flip(0)
        return Matches(found.query_index[later], found.object_index[later])


def test_layers_may_have_different_numbers_of_pairs_in_any_order():
    head, output, samples = build(), decoded(), make_batch()[1]
    expected = loss(head, output, samples)
    head.assigner = _Uneven()
    losses = loss(head, output, samples)
    for name, value in losses.items():
        if not name.startswith("d0."):
            assert_near(value, expected[name])
    assert losses["d0.loss_bbox"] == losses["d0.loss_iou"] == 0
