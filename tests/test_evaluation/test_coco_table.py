"""COCO metrics equal mmdet's."""

import json
from dataclasses import replace

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
def annotations(shapes) -> dict:
    return json.loads((shapes / "annotations/val.json").read_text())


@pytest.fixture
def images(annotations) -> list[ImageResult]:
    """Simulated detections: the validation set's objects with noise, some missing."""
    label_of = {c["id"]: CLASSES.index(c["name"]) for c in annotations["categories"]}
    generator = np.random.default_rng(0)
    found = []
    for image in annotations["images"]:
        own = [a for a in annotations["annotations"] if a["image_id"] == image["id"]]
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


def coco_metric(folder, metric="bbox", **options) -> CocoMetric:
    return CocoMetric(str(folder / "annotations/val.json"), metric, **options)


def mmdets_figures(metric, images) -> dict[str, float]:
    metric.dataset_meta = dict(classes=CLASSES)
    for image in images:
        instances = dict(
            bboxes=torch.tensor(image.boxes),
            scores=torch.tensor(image.scores.copy()),
            labels=torch.tensor(image.labels),
        )
        sample = dict(pred_instances=instances, img_id=image.image_id, ori_shape=(160, 160))
        metric.process({}, [sample])
    return metric.evaluate(len(images))


@pytest.mark.parametrize("options", [{}, dict(proposal_nums=(1, 10, 100))], ids=["1000", "100"])
def test_equal_to_mmdet(shapes, annotations, images, options):
    metric = coco_metric(shapes, classwise=True, **options)
    theirs = mmdets_figures(metric, images)
    table = coco_table(metric, images, CLASSES)
    assert sum(table.objects.values()) == len(annotations["annotations"])
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


def test_curves_give_ap_at_half_overlap(shapes, images):
    """The area of a class's curve, interpolated at COCO's 101 recalls, is its AP50."""
    table = coco_table(coco_metric(shapes), images, CLASSES)
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
        replace(i, boxes=i.true_boxes, labels=i.true_labels, scores=np.ones(len(i.true_boxes)))
        for i in some
    ]
    metric = coco_metric(shapes)
    chosen = [image.image_id for image in some]
    assert coco_table(metric, perfect, CLASSES, chosen).overall["AP"] == pytest.approx(1.0)
    assert coco_table(metric, perfect, CLASSES).overall["AP"] < 0.9


def test_classes_whose_ids_are_not_in_order(shapes, annotations, images, tmp_path):
    """Labels are in the file's order of categories, pycocotools' arrays in the order of ids."""
    table = coco_table(coco_metric(shapes), images, CLASSES)
    for kind, key in (("categories", "id"), ("annotations", "category_id")):
        for entry in annotations[kind]:
            entry[key] = 100 - entry[key]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/val.json").write_text(json.dumps(annotations))
    assert coco_table(coco_metric(tmp_path), images, CLASSES).classes == table.classes


def test_nothing_found(shapes, images):
    nothing = dict(boxes=np.zeros((0, 4)), labels=np.zeros(0, dtype=int), scores=np.zeros(0))
    table = coco_table(coco_metric(shapes), [replace(i, **nothing) for i in images], CLASSES)
    assert table.overall["AP"] == 0.0 and table.classes["disc"]["AP50"] == 0.0


def test_other_metrics_have_no_table(shapes):
    assert evaluates_coco_boxes(coco_metric(shapes, metric=["bbox", "segm"]))
    assert not evaluates_coco_boxes(coco_metric(shapes, metric="segm"))
    assert not evaluates_coco_boxes(object())
