"""Bad numbers are named: which image, which layer, which cost."""

import pytest
import torch
from support.matching import instances, make_predictions, make_targets, objects_of
from support.models import make_batch, tiny_model

from fastdetr_mmdet.models.matchers import HungarianMatcher

NAN, INF = float("nan"), float("inf")


def spoil(what, value, layer, image):
    """Predictions and objects with one bad value in them."""
    targets = make_targets((3, 2, 1))
    logits, boxes = make_predictions(4, 3, 6)
    if what == "logits":
        logits[layer, image, 3] = value
    elif what == "boxes":
        boxes[layer, image, 3, 0] = value
    else:
        targets.boxes[objects_of(targets, image).start, 2] = value
    return logits, boxes, targets


CASES = [
    ("logits", NAN, 2, 1, "FocalLossCost"),
    ("logits", INF, 1, 0, "FocalLossCost"),
    ("boxes", NAN, 3, 0, "BBoxL1Cost and IoUCost"),
    ("boxes", INF, 1, 2, "BBoxL1Cost and IoUCost"),
    ("objects", NAN, 0, 1, "BBoxL1Cost and IoUCost"),
    ("objects", INF, 0, 2, "BBoxL1Cost and IoUCost"),
]


@pytest.mark.parametrize("what, value, layer, image, terms", CASES)
def test_names_image_layer_and_cost(what, value, layer, image, terms):
    with pytest.raises(ValueError, match="Matching cost is not finite") as error:
        HungarianMatcher().match(*spoil(what, value, layer, image))
    sentence = str(error.value)
    assert f"image (id {7 + image}, file {image}.jpg)" in sentence
    assert f"decoder layer {layer}, cost term {terms}:" in sentence
    assert "clip_grad" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("what, value, layer, image, terms", CASES)
def test_names_image_and_cost_as_an_assigner(what, value, layer, image, terms):
    arguments = instances(*spoil(what, value, layer, image), layer, image)
    with pytest.raises(ValueError, match=f"cost term {terms}:") as error:
        HungarianMatcher().assign(*arguments)
    assert f"image (id {7 + image})" in str(error.value)


@pytest.mark.parametrize("counts", [(2, 0), (0, 0)])
@pytest.mark.parametrize("value", [NAN, INF])
def test_names_an_image_without_objects(counts, value):
    targets = make_targets(counts)
    logits, boxes = make_predictions(3, 2, 4)
    logits[1, 1, 2, 0] = value
    with pytest.raises(
        ValueError, match=r"outputs are not finite for image \(.*\), decoder layer 1"
    ):
        HungarianMatcher().match(logits, boxes, targets)


def test_calls_layers_what_the_head_calls_them():
    with pytest.raises(ValueError, match="encoder proposals, layer 0, cost term FocalLossCost"):
        HungarianMatcher().match(*spoil("logits", NAN, 0, 1), what="encoder proposals, layer")


def test_names_the_sum_when_only_that_overflows():
    huge = dict(type="BBoxL1Cost", weight=1e38)
    targets = make_targets((1,))
    logits, boxes = make_predictions(1, 1, 1)
    boxes[..., :2], targets.boxes[:, :2] = 0.0, 0.8
    with pytest.raises(ValueError, match="cost term sum of all"):
        HungarianMatcher([huge, huge]).match(logits, boxes, targets)


@pytest.mark.parametrize("label", [5, 1000, -1])
def test_class_index_out_of_range(label):
    targets = make_targets((3, 2, 1))
    targets.labels[4] = label  # the second object of the second image
    logits, boxes = make_predictions(4, 3, 6)
    sentence = (
        rf"Class index {label} of image \(id 8, file 1.jpg\) is out of range for 5 classes; set "
        "model.bbox_head.num_classes to the number of classes in the data set's metainfo"
    )
    with pytest.raises(ValueError, match=sentence):
        HungarianMatcher().match(logits, boxes, targets)
    arguments = instances(logits, boxes, targets, 0, 1)
    with pytest.raises(ValueError, match=f"Class index {label} of image .id 8. is out of range"):
        HungarianMatcher().assign(*arguments)


def test_detector_passes_the_image_on():
    model = tiny_model()
    inputs, samples = make_batch()
    samples[1].set_metainfo(dict(img_path="images/two.jpg"))
    samples[1].gt_instances.bboxes[0, 0] = NAN
    with pytest.raises(ValueError, match=r"image .id 1, file images/two.jpg., decoder layer 0"):
        model.loss(inputs, samples)
    samples[1].gt_instances.bboxes[0, 0] = 0
    samples[1].gt_instances.labels[0] = 5
    with pytest.raises(ValueError, match=r"Class index 5 of image .id 1, file images/two.jpg."):
        model.loss(inputs, samples)


def test_image_without_a_name():
    targets = make_targets((1,))
    logits, boxes = make_predictions(1, 1, 2)
    logits[:] = NAN
    predictions, objects, meta = instances(logits, boxes, targets, 0, 0)
    with pytest.raises(ValueError, match=r"image .id unknown."):
        HungarianMatcher().assign(predictions, objects, dict(img_shape=meta["img_shape"]))


def test_more_objects_than_queries_leaves_the_dearest_unmatched():
    targets = make_targets((4,))
    logits = torch.zeros(1, 1, 2, 5)
    boxes = targets.boxes[None, None, [2, 0]].clone()
    matches = HungarianMatcher().match(logits, boxes, targets)
    assert matches.query_index.tolist() == [0, 1]
    assert matches.object_index.tolist() == [2, 0]
