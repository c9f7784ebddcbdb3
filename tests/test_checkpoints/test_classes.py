"""COCO's category ids become mmdet's labels, in branches and detections."""

import pytest
import torch
from support.models import make_batch
from support.small import small_detector

from fastdetr_mmdet.checkpoints.classes import COCO_IDS, holds_coco_ids, map_classes

TWO_STAGE = "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco"


def branches(rows: int, count: int = 1) -> dict:
    """Class branches whose values are the number of branch and row."""
    weights = {"bbox_head.reg_branches.0.0.weight": torch.ones(4, 4)}
    for index in range(count):
        number = torch.arange(rows) + 1000 * index
        weights[f"bbox_head.cls_branches.{index}.weight"] = number[:, None].expand(rows, 3).float()
        weights[f"bbox_head.cls_branches.{index}.bias"] = number
    return weights


@pytest.mark.parametrize(
    ("rows", "classes", "coco_ids", "kept"),
    [
        *((rows, classes, True, COCO_IDS) for rows in (91, 92) for classes in (80, None)),
        *((91, 91, True, range(91)), (92, 92, True, range(92)), (92, 91, True, range(91))),
        *((80, 80, True, range(80)), (80, None, True, range(80)), (7, None, True, range(7))),
        # own classes of the same number
        *((91, None, False, range(91)), (92, None, False, range(92))),
    ],
)
def test_rows(rows, classes, coco_ids, kept):
    """Category ids become labels; other rows are kept."""
    weights = branches(rows, count=2)
    mapped = map_classes(weights, classes, coco_ids)
    assert list(mapped) == list(weights)
    for index in range(2):
        bias = mapped[f"bbox_head.cls_branches.{index}.bias"]
        assert bias.tolist() == [number + 1000 * index for number in kept]
        assert torch.equal(mapped[f"bbox_head.cls_branches.{index}.weight"][:, 1], bias.float())


@pytest.mark.parametrize(
    ("rows", "classes", "choices"),
    [
        (91, 20, "80, 91 "),
        (92, 0, "80, 91, 92 "),
        (91, 92, "80, 91 "),
        (80, 91, " 80 "),
        (7, 80, " 7 "),
    ],
)
def test_other_numbers(rows, classes, choices):
    with pytest.raises(ValueError, match=f"{rows} .*{classes}.*--classes:.*{choices}"):
        map_classes(branches(rows), classes)


def test_two_stage_detections_stay():
    """80 classes give the detections of 91, except ids without a category.

    The proposals' first logit ranks them, so it must not become the row of 'person'.
    """
    inputs, samples = make_batch()
    weights, outputs, found = {}, {}, {}
    for classes, limit in ((91, 10**6), (80, 100)):
        sizes = dict(bbox_head__num_classes=classes, test_cfg__max_per_img=limit)
        model = small_detector(TWO_STAGE, **sizes)
        weights = weights or model.state_dict()
        model.load_state_dict(map_classes(weights, classes))
        with torch.no_grad():
            outputs[classes] = model._forward(inputs, samples)
            found[classes] = [sample.pred_instances for sample in model.predict(inputs, samples)]
    assert torch.equal(outputs[91][0][..., list(COCO_IDS)], outputs[80][0])
    assert torch.equal(outputs[91][1], outputs[80][1])
    labels = torch.full((91,), -1)
    labels[list(COCO_IDS)] = torch.arange(80)
    for ids, ours in zip(found[91], found[80], strict=True):
        ids = ids[labels[ids.labels] >= 0][:100]
        assert len(ours) == 100
        assert torch.equal(labels[ids.labels], ours.labels)
        assert torch.equal(ids.scores, ours.scores)
        assert torch.equal(ids.bboxes, ours.bboxes)


@pytest.mark.parametrize(
    ("method", "rows", "expected"),
    [
        ("sam_detr", 91, True),
        ("smca_detr", 92, True),
        ("smca_detr", 91, False),
        ("deformable_detr", 92, False),
        ("mmdet", 91, False),
        ("conditional_detr", 80, False),
        ("mmdet", None, False),
    ],
)
def test_whose_logits_are_category_ids(method, rows, expected):
    assert holds_coco_ids(method, rows) == expected
