"""The graph that is exported equals ``FastDETR.predict``, for every shipped model."""

import pytest
import torch
from mmdet.structures import DetDataSample
from support.small import CONFIGS, NUM_CLASSES, NUM_QUERIES, small_detector
from support.tolerances import assert_near

from fastdetr_mmdet.export import DetectionGraph


def predict(detector, images):
    size = tuple(images.shape[-2:])
    metainfo = dict(img_shape=size, batch_input_shape=size, scale_factor=(2.0, 2.0))
    samples = [DetDataSample(metainfo=metainfo) for _ in images]
    return [sample.pred_instances for sample in detector.predict(images, samples, rescale=False)]


# In `make test` one of each family; `make test-slow` takes all.
QUICK = (
    "conditional_detr/conditional-detr_r50_8xb2-50e_coco",
    "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco",
    "smca_detr/smca-detr-ms-conv_r50_8xb1-50e_coco",
    "sam_detr/sam-detr-ms-smca_r50_8xb2-50e_coco",
)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in CONFIGS],
)
@torch.no_grad()
def test_equals_predict(name):
    detector = small_detector(name)
    images = torch.randn(2, 3, 97, 130)
    boxes, scores, labels = DetectionGraph(detector)(images)
    k = min(detector.bbox_head.test_cfg["max_per_img"], NUM_QUERIES * NUM_CLASSES)
    assert boxes.shape == (2, k, 4) and scores.shape == labels.shape == (2, k)
    for image, expected in enumerate(predict(detector, images)):
        assert_near(boxes[image], expected.bboxes)
        assert_near(scores[image], expected.scores)
        assert torch.equal(labels[image], expected.labels)


@torch.no_grad()
def test_boxes_are_clipped_to_the_input():
    detector = small_detector("conditional_detr/conditional-detr_r50_8xb2-50e_coco")
    detector.bbox_head.reg_branches[0][-1].bias.copy_(torch.tensor([3.0, -3.0, 3.0, 3.0]))
    boxes, _, _ = DetectionGraph(detector)(torch.randn(1, 3, 64, 96))
    assert boxes.min() == 0 and boxes[..., 0].max() < 96
    assert (boxes[..., 2] <= 96).all() and (boxes[..., 3] <= 64).all()
    assert (boxes[..., 2] == 96).any()


@torch.no_grad()
def test_what_nms_suppresses_scores_zero():
    detector = small_detector("conditional_detr/conditional-detr_r50_8xb2-50e_coco")
    detector.bbox_head.test_cfg["nms"] = dict(type="nms", iou_threshold=0.3)
    images = torch.randn(2, 3, 64, 96)
    boxes, scores, _ = DetectionGraph(detector)(images)
    for image, expected in enumerate(predict(detector, images)):
        kept = scores[image] > 0
        assert 0 < len(expected) < len(kept)
        assert_near(boxes[image, kept], expected.bboxes)
