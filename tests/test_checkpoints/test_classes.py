"""COCO's category ids become mmdet's labels, in branches and detections."""

import json

import pytest
import torch
from mmdet.datasets import CocoDataset
from support.models import make_batch
from support.small import small_detector

from fastdetr_mmdet.checkpoints.classes import (
    COCO_IDS,
    holds_coco_ids,
    map_classes,
)

TWO_STAGE = "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco"
# Ids of instances_val2017.json.
COCO_NUMBERS = [
    *(*range(1, 12), *range(13, 26), 27, 28, *range(31, 45), *range(46, 66), 67, 70),
    *(*range(72, 83), *range(84, 91)),
]
PAIRS = list(zip(COCO_NUMBERS, CocoDataset.METAINFO["classes"], strict=True))


def test_ids_are_those_of_mmdet_s_labels(tmp_path):
    """The dataset maps labels to ids."""
    annotations = tmp_path / "instances.json"
    categories = [dict(id=number, name=name) for number, name in PAIRS]
    image = dict(id=1, file_name="a.jpg", height=8, width=8)
    box = dict(id=1, image_id=1, category_id=90, bbox=[1, 1, 4, 4], area=16, iscrowd=0)
    content = dict(images=[image], annotations=[box], categories=categories)
    annotations.write_text(json.dumps(content))
    dataset = CocoDataset(ann_file=str(annotations), data_prefix=dict(img=""), pipeline=[])
    assert len(COCO_IDS) == 80
    assert list(COCO_IDS) == dataset.cat_ids
    assert {number: label for label, number in enumerate(COCO_IDS)} == dataset.cat2label


def branches(rows: int, count: int = 1, two_stage: bool = False) -> dict:
    """Class branches whose values are the number of branch and row."""
    weights = {"bbox_head.reg_branches.0.0.weight": torch.ones(4, 4)}
    for index in range(count):
        number = torch.arange(rows) + 1000 * index
        weights[f"bbox_head.cls_branches.{index}.weight"] = number[:, None].expand(rows, 3).float()
        weights[f"bbox_head.cls_branches.{index}.bias"] = number
    if two_stage:
        weights["transformer.queries.memory_proj.weight"] = torch.ones(3, 3)
    return weights


@pytest.mark.parametrize("rows", [91, 92])
@pytest.mark.parametrize("classes", [80, None])
def test_category_ids_become_labels(rows, classes):
    weights = branches(rows, count=2)
    mapped = map_classes(weights, classes)
    assert list(mapped) == list(weights)
    for index in range(2):
        bias = mapped[f"bbox_head.cls_branches.{index}.bias"]
        assert bias.tolist() == [number + 1000 * index for number in COCO_IDS]
        assert torch.equal(mapped[f"bbox_head.cls_branches.{index}.weight"][:, 1], bias.float())


def test_the_proposals_keep_their_first_logit():
    """The first logit ranks proposals, so it must not become the row of 'person'."""
    mapped = map_classes(branches(91, count=3, two_stage=True), 80)
    assert mapped["bbox_head.cls_branches.1.bias"][0] == 1001
    assert mapped["bbox_head.cls_branches.2.bias"].tolist() == list(range(2000, 2080))


@pytest.mark.parametrize(
    ("rows", "classes", "coco_ids", "kept"),
    [
        *((91, 91, True, 91), (92, 92, True, 92), (92, 91, True, 91), (80, 80, True, 80)),
        *((80, None, True, 80), (7, None, True, 7)),
        # own classes of the same number
        *((91, None, False, 91), (92, None, False, 92)),
    ],
)
def test_rows_that_are_kept(rows, classes, coco_ids, kept):
    bias = map_classes(branches(rows), classes, coco_ids)["bbox_head.cls_branches.0.bias"]
    assert bias.tolist() == list(range(kept))


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
    """80 classes give the detections of 91, except ids without a category."""
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
