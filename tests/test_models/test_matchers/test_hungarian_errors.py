"""Errors on invalid numbers name image, layer and cost."""

import pytest
from support.matching import instances, make_predictions, make_targets, objects_of
from support.models import make_batch, tiny_model

from fastdetr_mmdet.models.matchers import HungarianMatcher

NAN, INF = float("nan"), float("inf")


def with_bad(what, value, layer, image):
    """Predictions and objects with one invalid value."""
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
    """Also as an assigner, without file and layer."""
    given = with_bad(what, value, layer, image)
    with pytest.raises(ValueError) as error:
        HungarianMatcher().match(*given)
    for named in (f"id {7 + image}, file {image}.jpg", f"layer {layer}", f"cost term {terms}:"):
        assert named in str(error.value)
    with pytest.raises(ValueError) as error:
        HungarianMatcher().assign(*instances(*given, layer, image))
    assert f"id {7 + image}" in str(error.value)
    assert f"cost term {terms}:" in str(error.value)


@pytest.mark.parametrize("counts", [(2, 0), (0, 0)])
@pytest.mark.parametrize("value", [NAN, INF])
def test_names_an_image_without_objects(counts, value):
    targets = make_targets(counts)
    logits, boxes = make_predictions(3, 2, 4)
    logits[1, 1, 2, 0] = value
    with pytest.raises(ValueError, match=r"id 8, file 1\.jpg.*layer 1"):
        HungarianMatcher().match(logits, boxes, targets)


def test_calls_layers_what_the_head_calls_them():
    with pytest.raises(ValueError, match="encoder proposals, layer 0, cost term FocalLossCost"):
        HungarianMatcher().match(*with_bad("logits", NAN, 0, 1), what="encoder proposals, layer")


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
    with pytest.raises(ValueError, match=rf"index {label} .*id 8, file 1\.jpg.* 5 .*num_classes"):
        HungarianMatcher().match(logits, boxes, targets)
    with pytest.raises(ValueError, match=f"index {label} .*id 8"):
        HungarianMatcher().assign(*instances(logits, boxes, targets, 0, 1))


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
