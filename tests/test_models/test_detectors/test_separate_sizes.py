"""``test_cfg.separate_sizes``: in ``predict`` an image does not depend on its batch."""

import pytest
import torch
from support.models import make_batch
from support.small import small_detector
from support.tolerances import assert_near

SIZES = ((64, 96), (97, 70), (64, 96), (80, 80))
DETECTORS = (
    "conditional_detr/conditional-detr_r50_8xb2-50e_coco",
    "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco",
    "smca_detr/smca-detr-ms-conv_r50_8xb1-50e_coco",
    "sam_detr/sam-detr-smca_r50_4xb4-50e_coco",
)


def results(detector, inputs, samples):
    found = [sample.pred_instances for sample in detector.predict(inputs, samples)]
    return [(f.scores, f.bboxes, f.labels) for f in found]


def alone(detector, inputs, samples):
    """Predict every image alone, without padding."""
    for image, (h, w) in enumerate(SIZES):
        yield results(detector, inputs[image : image + 1, :, :h, :w], samples[image : image + 1])[0]


@pytest.mark.parametrize("name", DETECTORS)
@torch.no_grad()
def test_batch_gives_what_single_images_give(name):
    detector = small_detector(name, test_cfg__separate_sizes=True)
    inputs, samples = make_batch(SIZES, objects=0)
    together = results(detector, inputs, samples)
    for actual, expected in zip(together, alone(detector, inputs, samples), strict=True):
        assert_near(actual[0], expected[0])
        assert_near(actual[1], expected[1], atol=1e-3)  # pixels
        assert torch.equal(actual[2], expected[2])


@torch.no_grad()
def test_without_it_padding_is_seen():
    """With the default, as in the official codes, results depend on padding."""
    detector = small_detector(DETECTORS[0])
    inputs, samples = make_batch(SIZES, objects=0)
    together = results(detector, inputs, samples)
    differences = [
        float((actual[0] - expected[0]).abs().max())
        for actual, expected in zip(together, alone(detector, inputs, samples), strict=True)
    ]
    assert max(differences) > 1e-4


@torch.no_grad()
def test_same_sizes_are_one_batch(monkeypatch):
    detector = small_detector(DETECTORS[0], test_cfg__separate_sizes=True)
    seen = []
    extract = detector.extract_feat
    monkeypatch.setattr(
        detector, "extract_feat", lambda images: seen.append(tuple(images.shape)) or extract(images)
    )
    inputs, samples = make_batch(SIZES, objects=0)
    returned = detector.predict(inputs, samples)
    assert seen == [(2, 3, 64, 96), (1, 3, 97, 70), (1, 3, 80, 80)]
    assert list(returned) == samples
    assert all(len(sample.pred_instances) for sample in samples)
