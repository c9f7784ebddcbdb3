"""FastDETRHead inside mmdet's own detectors does what mmdet's own heads do there."""

import pytest
import torch
from support import mmdet_models
from support.models import NUM_CLASSES, NUM_QUERIES, make_batch, total
from support.tolerances import assert_near

pytestmark = pytest.mark.smoke


def conditional(head, assigner):
    return mmdet_models.conditional_detr(assigner, head or "ConditionalDETRHead")


def deformable(refine, two_stage):
    def config(head, assigner):
        head = head or "DeformableDETRHead"
        return mmdet_models.deformable_detr(assigner, head, refine, two_stage)

    return config


DETECTORS = {
    "ConditionalDETR": conditional,
    "DeformableDETR": deformable(refine=False, two_stage=False),
    "DeformableDETR, refine": deformable(refine=True, two_stage=False),
    "DeformableDETR, two stage": deformable(refine=True, two_stage=True),
}


@pytest.fixture(params=DETECTORS.values(), ids=DETECTORS.keys())
def pair(request):
    """The detector with mmdet's head and assigner, and with ours, of equal weights."""
    theirs = mmdet_models.build(request.param(None, "HungarianAssigner"))
    ours = mmdet_models.build(request.param("FastDETRHead", "HungarianMatcher"), seed=1)
    mmdet_models.copy_weights(theirs, ours)
    return theirs, ours


@pytest.mark.parametrize("objects", [(3, 1), (2, 0)], ids=["both", "one empty"])
def test_losses_and_gradients_equal_those_of_mmdets_head(pair, objects):
    theirs, ours = pair
    inputs, samples = make_batch(objects=objects)
    expected, actual = theirs.loss(inputs, samples), ours.loss(inputs, samples)
    assert set(actual) == set(expected)
    for name, loss in expected.items():
        assert_near(actual[name], loss.view(()), msg=lambda text, name=name: f"{name}: {text}")
    total(expected).backward()
    total(actual).backward()
    assert_near(ours.neck.convs[0].conv.weight.grad, theirs.neck.convs[0].conv.weight.grad)
    without = [n for n, p in ours.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_predictions_equal_those_of_mmdets_head(pair):
    theirs, ours = (model.eval() for model in pair)
    inputs, samples = make_batch(scale_factor=(0.5, 0.25))
    with torch.no_grad():
        expected = [r.pred_instances for r in theirs.predict(inputs, samples)]
        actual = [r.pred_instances for r in ours.predict(inputs, samples)]
    for ours_, theirs_ in zip(actual, expected, strict=True):
        assert_near(ours_.scores, theirs_.scores)
        assert torch.equal(ours_.labels, theirs_.labels)
        assert_near(ours_.bboxes, theirs_.bboxes, rtol=1e-3, atol=1e-2)


def test_raw_outputs(pair):
    theirs, ours = (model.eval() for model in pair)
    inputs, samples = make_batch()
    with torch.no_grad():
        expected, actual = theirs._forward(inputs, samples), ours._forward(inputs, samples)
    assert actual[0].shape == (mmdet_models.NUM_LAYERS, 2, NUM_QUERIES, NUM_CLASSES)
    for ours_, theirs_ in zip(actual, expected[:2], strict=True):
        assert_near(ours_, theirs_)


@pytest.mark.parametrize("head", [None, "FastDETRHead"], ids=["mmdet's head", "our head"])
@pytest.mark.parametrize("detector", DETECTORS.values(), ids=DETECTORS.keys())
def test_matcher_and_mmdets_assigner_are_exchangeable(detector, head):
    """train_cfg.assigner may be either, in mmdet's head and in ours."""
    theirs = mmdet_models.build(detector(head, "HungarianAssigner"))
    ours = mmdet_models.build(detector(head, "HungarianMatcher"))
    batch = make_batch(objects=(4, 0))
    expected, actual = theirs.loss(*batch), ours.loss(*batch)
    for name, loss in expected.items():
        assert_near(actual[name], loss)


def test_matcher_in_plain_detr():
    """Softmax classes: ClassificationCost, and an object of every class but background."""
    theirs = mmdet_models.build(mmdet_models.detr("HungarianAssigner"))
    ours = mmdet_models.build(mmdet_models.detr("HungarianMatcher"))
    batch = make_batch(objects=(4, 0))
    expected, actual = theirs.loss(*batch), ours.loss(*batch)
    for name, loss in expected.items():
        assert_near(actual[name], loss)
