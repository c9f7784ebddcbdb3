"""COCO metrics equal mmdet's."""

import json

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric
from support.runs import CLASSES

from fastdetr_mmdet.evaluation.coco_table import (
    COLUMNS,
    METRICS,
    _curve,
    coco_table,
    evaluates_coco_boxes,
)
from fastdetr_mmdet.evaluation.results import ImageResult


@pytest.fixture
def images(shapes) -> list[ImageResult]:
    """Simulated detections: the validation set's objects with noise, some missing."""
    coco = json.loads((shapes / "annotations/val.json").read_text())
    label_of = {c["id"]: CLASSES.index(c["name"]) for c in coco["categories"]}
    generator = np.random.default_rng(0)
    found = []
    for image in coco["images"]:
        own = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        true = np.array([a["bbox"] for a in own], dtype=float).reshape(-1, 4)
        true[:, 2:] += true[:, :2]
        labels = np.array([label_of[a["category_id"]] for a in own], dtype=int)
        kept = generator.random(len(own)) < 0.7
        boxes = np.repeat(true[kept], 2, axis=0)
        boxes = boxes + generator.normal(0, 4, boxes.shape)
        guesses = np.repeat(labels[kept], 2)
        guesses = np.where(generator.random(len(guesses)) < 0.8, guesses, (guesses + 1) % 6)
        scores = np.sort(generator.random(len(boxes)))[::-1]
        none = np.zeros(len(own), dtype=bool)
        found.append(ImageResult(image["id"], "", true, labels, none, boxes, guesses, scores))
    return found


def evaluated(shapes, images, **options) -> tuple[CocoMetric, dict[str, float]]:
    metric = CocoMetric(ann_file=str(shapes / "annotations/val.json"), metric="bbox", **options)
    metric.dataset_meta = dict(classes=CLASSES)
    for image in images:
        instances = dict(
            bboxes=torch.tensor(image.boxes),
            scores=torch.tensor(image.scores.copy()),
            labels=torch.tensor(image.labels),
        )
        sample = dict(pred_instances=instances, img_id=image.image_id, ori_shape=(160, 160))
        metric.process({}, [sample])
    return metric, metric.evaluate(len(images))


@pytest.mark.parametrize("options", [{}, dict(proposal_nums=(1, 10, 100))], ids=["1000", "100"])
def test_equal_to_mmdet(shapes, images, options):
    metric, theirs = evaluated(shapes, images, classwise=True, **options)
    table = coco_table(metric, images, CLASSES)
    ours = {
        f"coco/bbox_{name}": table.overall[col] for col, name in zip(COLUMNS, METRICS, strict=True)
    }
    assert 0.1 < ours["coco/bbox_mAP"] < 0.9
    for name, value in ours.items():
        assert (-1 if value is None else round(value, 3)) == pytest.approx(theirs[name], abs=1e-9)
    for name in CLASSES:
        # mmdet's AP per class uses the largest limit, its overall AP 100 detections; equal with
        # fewer boxes
        assert table.classes[name]["AP"] == pytest.approx(
            theirs[f"coco/{name}_precision"], abs=6e-4
        )
    mean = np.mean([figures["AP"] for figures in table.classes.values()])
    assert mean == pytest.approx(table.overall["AP"])
    for column in COLUMNS[1:]:
        known = [f[column] for f in table.classes.values() if f[column] is not None]
        assert np.mean(known) == pytest.approx(table.overall[column])


def test_objects_are_counted(shapes, images):
    metric, _ = evaluated(shapes, images)
    coco = json.loads((shapes / "annotations/val.json").read_text())
    assert sum(coco_table(metric, images, CLASSES).objects.values()) == len(coco["annotations"])


def test_curves_give_ap_at_half_overlap(shapes, images):
    """The area of a class's curve, interpolated at COCO's 101 recalls, is its AP50."""
    table = coco_table(evaluated(shapes, images)[0], images, CLASSES)
    assert set(table.curves) == set(CLASSES) and table.pooled is not None
    for name, curve in table.curves.items():
        places = np.searchsorted(curve.recall, np.linspace(0, 1, 101) - 1e-9)
        highest = np.append(np.maximum.accumulate(curve.precision[::-1])[::-1], 0)
        assert highest[places].mean() == pytest.approx(table.classes[name]["AP50"], abs=1e-6)


def test_best_score():
    """Two objects; boxes right, wrong, right, the last two with equal scores."""
    image = dict(gtIgnore=[0, 0, 1], dtScores=[0.9, 0.4, 0.4, 0.3],
                 dtIgnore=[[0, 0, 0, 1]], dtMatches=[[5, 0, 7, 9]])  # fmt: skip
    curve = _curve([None, image])
    assert curve.scores.tolist() == [0.9, 0.4]
    assert curve.precision == pytest.approx([1, 2 / 3]) and curve.recall == pytest.approx([0.5, 1])
    assert curve.best == pytest.approx([0.4, 0.8, 2 / 3, 1])
    assert _curve([dict(image, gtIgnore=[1, 1, 1])]) is _curve([None]) is None


def test_only_some_images(shapes, images):
    """As with --max-images: objects of other images do not count."""
    some = [image for image in images if len(image.true_boxes)][:2]
    perfect = [
        ImageResult(i.image_id, "", i.true_boxes, i.true_labels, i.crowd, i.true_boxes,
                    i.true_labels, np.ones(len(i.true_boxes)))
        for i in some
    ]  # fmt: skip
    metric = CocoMetric(ann_file=str(shapes / "annotations/val.json"), metric="bbox")
    chosen = [image.image_id for image in some]
    assert coco_table(metric, perfect, CLASSES, chosen).overall["AP"] == pytest.approx(1.0)
    assert coco_table(metric, perfect, CLASSES).overall["AP"] < 0.9


def test_classes_whose_ids_are_not_in_order(shapes, images, tmp_path):
    """Labels are in the file's order of categories, pycocotools' arrays in the order of ids."""
    table = coco_table(evaluated(shapes, images)[0], images, CLASSES)
    coco = json.loads((shapes / "annotations/val.json").read_text())
    for entry, key in [(c, "id") for c in coco["categories"]] + [
        (a, "category_id") for a in coco["annotations"]
    ]:
        entry[key] = 100 - entry[key]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/val.json").write_text(json.dumps(coco))
    metric = CocoMetric(ann_file=str(tmp_path / "annotations/val.json"), metric="bbox")
    assert coco_table(metric, images, CLASSES).classes == table.classes


def test_nothing_found(shapes, images):
    empty = [
        ImageResult(i.image_id, "", i.true_boxes, i.true_labels, i.crowd, np.zeros((0, 4)),
                    np.zeros(0, dtype=int), np.zeros(0))
        for i in images
    ]  # fmt: skip
    metric, _ = evaluated(shapes, images)
    table = coco_table(metric, empty, CLASSES)
    assert table.overall["AP"] == 0.0 and table.classes["disc"]["AP50"] == 0.0


def test_other_metrics_have_no_table(shapes):
    file = str(shapes / "annotations/val.json")
    assert evaluates_coco_boxes(CocoMetric(ann_file=file, metric=["bbox", "segm"]))
    assert not evaluates_coco_boxes(CocoMetric(ann_file=file, metric="segm"))
    assert not evaluates_coco_boxes(object())
