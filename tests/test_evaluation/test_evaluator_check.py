"""The evaluator must describe the dataset's images, or the run does not start."""

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset, ConcatDataset
from mmdet.registry import EVALUATOR, HOOKS
from mmengine.dataset import RepeatDataset
from mmengine.evaluator import Evaluator

from fastdetr_mmdet.utils.cli import UserError

CLASSES = ("cat", "dog")
phases = pytest.mark.parametrize("phase", ["train", "val", "test"])


@pytest.fixture
def write(tmp_path):
    """Writes annotations of images with one object each, except the last."""

    def write(name, ids=range(1, 7), x=5, names=CLASSES, reverse=False, empty=(), prefix=""):
        coco = dict(
            images=[dict(id=i, file_name=f"{prefix}{i}.jpg", height=50, width=60) for i in ids],
            annotations=[
                dict(
                    id=i, image_id=i, category_id=1 + i % 2, bbox=[x, 1.1, 10.3, 9], area=90,
                    iscrowd=0,
                )
                for i in ids
                if i not in empty
            ],
            categories=[dict(id=n, name=name) for n, name in enumerate(names, start=1)],
        )  # fmt: skip
        if reverse:
            coco["categories"].reverse()
        path = tmp_path / name
        path.write_text(json.dumps(coco))
        return str(path)

    return write


def load(path, kind=CocoDataset, **options):
    options = dict(test_mode=True, pipeline=[]) | options
    return kind(
        ann_file=path, data_prefix=dict(img="images/"), metainfo=dict(classes=CLASSES), **options
    )


def coco(path, **options):
    return dict(type="CocoMetric", ann_file=path, metric="bbox", **options)


def runner_of(dataset, config, phase="val"):
    build = EVALUATOR.build if isinstance(config, dict) and "metrics" in config else Evaluator
    evaluator = build(config)
    evaluator.dataset_meta = dataset.metainfo
    loader = SimpleNamespace(dataset=dataset)
    where = "test" if phase == "test" else "val"
    loops = {"val_loop": None, f"{where}_loop": SimpleNamespace(dataloader=loader)}
    loops[f"{where}_loop"].evaluator = evaluator
    return SimpleNamespace(
        model=SimpleNamespace(),
        cfg={f"{where}_evaluator": config},
        logger=logging.getLogger("evaluator"),
        train_loop=SimpleNamespace(dataloader=loader) if phase == "train" else None,
        **loops,
    )


def start(dataset, config, phase="val"):
    """Run the hook's check; return the evaluator."""
    runner = runner_of(dataset, config, phase)
    getattr(HOOKS.build(dict(type="DatasetClassesCheckHook")), f"before_{phase}")(runner)
    return (runner.test_loop if phase == "test" else runner.val_loop).evaluator


def average_precision(evaluator, dataset):
    """AP of perfect detections."""
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        boxes = torch.tensor([i["bbox"] for i in info["instances"]]).view(-1, 4)
        labels = torch.tensor([i["bbox_label"] for i in info["instances"]], dtype=torch.long)
        sample = dict(
            img_id=info["img_id"],
            ori_shape=(info["height"], info["width"]),
            pred_instances=dict(bboxes=boxes, labels=labels, scores=torch.ones(len(boxes))),
        )
        evaluator.process([sample])
    return evaluator.evaluate(len(dataset))


@phases
def test_own_file(write, phase):
    path = write("val.json")
    dataset = load(path)
    evaluator = start(dataset, coco(path), phase)
    assert evaluator.metrics[0].img_ids is None
    assert average_precision(evaluator, dataset)["coco/bbox_mAP"] == 1


def test_a_copy_and_more_objects(write):
    """Boxes that mmdet's dataset skips are only in the evaluator's file."""
    evaluated = write("copy.json")
    dataset = load(write("val.json", empty=[2]))
    start(dataset, coco(evaluated))


OTHERS = {
    "other boxes": dict(x=6),
    "other images": dict(ids=range(11, 17)),
    "other order of classes": dict(reverse=True),
    "other classes": dict(names=("cat", "fox")),
    "no objects": dict(empty=range(1, 7)),
}


@phases
@pytest.mark.parametrize("name", OTHERS)
def test_file_of_other_images(write, phase, name):
    """Perfect detections would silently have an AP of 0."""
    own, other = write("val.json"), write("other.json", **OTHERS[name])
    with pytest.raises(UserError, match=rf"Image 1\b.*{own}.*_evaluator\.ann_file={other}"):
        start(load(own), coco(other), phase)


def test_file_of_other_images_without_objects(write):
    nothing = dict(empty=range(1, 7))
    own, other = write("val.json", **nothing), write("other.json", prefix="b", **nothing)
    start(load(own), coco(own))
    with pytest.raises(UserError, match=other):
        start(load(own), coco(other))
    start(load(own), coco(other, format_only=True, outfile_prefix="x"))  # nothing is evaluated


@phases
def test_two_data_sets(write, phase):
    first, second = write("a.json", range(1, 4)), write("b.json", range(4, 7))
    whole = write("whole.json")
    dataset = ConcatDataset([load(first), load(second)])
    evaluator = start(dataset, coco(whole), phase)
    assert average_precision(evaluator, dataset)["coco/bbox_mAP"] == 1
    with pytest.raises(UserError, match=rf"Image 4\b.*{second}.*{first}"):
        start(dataset, coco(first), phase)


@phases
def test_two_data_sets_with_the_same_ids(write, phase):
    first, second = write("a.json", range(1, 5)), write("b.json", range(3, 7))
    dataset = ConcatDataset([load(first), load(second)])
    with pytest.raises(UserError, match=rf"{first}, {second}.* 3\b.*{write('whole.json')}"):
        start(dataset, coco(write("whole.json")), phase)


def test_two_data_sets_with_a_metric_each(write):
    """Then ids may repeat."""
    first, second = write("a.json", range(1, 5)), write("b.json", range(3, 7), x=7)
    dataset = ConcatDataset([load(first), load(second)])

    def several(*files):
        metrics = [coco(file) for file in files]
        return dict(type="MultiDatasetsEvaluator", metrics=metrics, dataset_prefixes=["a", "b"])

    evaluator = start(dataset, several(first, second))
    found = average_precision(evaluator, dataset)
    assert (found["a/coco/bbox_mAP"], found["b/coco/bbox_mAP"]) == (1, 1)
    with pytest.raises(UserError, match=rf"{first}.*{second}"):
        start(dataset, several(second, first))


def test_repeated_data_set(write):
    path = write("val.json")
    with pytest.raises(UserError, match=rf"two images with id 1\b.*{path}"):
        start(RepeatDataset(load(path), 2), coco(path))


@phases
def test_some_of_the_images(write, phase, caplog):
    """Objects of other images do not count as missed; AP was 0.337 before."""
    path = write("val.json")
    dataset = load(path, indices=2)
    with caplog.at_level(logging.WARNING):
        evaluator = start(dataset, coco(path), phase)
    assert caplog.text.count(path) == 2 and "2 of the 6" in caplog.text
    assert average_precision(evaluator, dataset)["coco/bbox_mAP"] == 1


@pytest.mark.parametrize("test_mode", [True, False])
def test_filtered_images(write, test_mode):
    """Only a dataset that is not in test mode drops images without objects."""
    path = write("val.json", empty=[2, 5])
    dataset = load(path, test_mode=test_mode, filter_cfg=dict(filter_empty_gt=True))
    evaluator = start(dataset, coco(path))
    assert evaluator.metrics[0].img_ids == (None if test_mode else [1, 3, 4, 6])


def test_ground_truth_of_the_data_set(write):
    """A metric without a file uses the samples' ground truth."""
    start(load(write("val.json")), dict(type="CocoMetric"))


class Own(CocoDataset):
    """A custom dataset that clips boxes."""

    def parse_data_info(self, raw_data_info):
        info = super().parse_data_info(raw_data_info)
        for instance in info["instances"]:
            instance["bbox"] = np.clip(instance["bbox"], 2, None).tolist()
        return info


def test_data_set_with_its_own_reading(write):
    """Only ids can be compared."""
    path = write("val.json")
    dataset = load(path, Own)
    start(dataset, coco(path))
    with pytest.raises(UserError, match=path):
        start(dataset, coco(write("other.json", range(11, 17))))


def test_is_checked_once(write, monkeypatch):
    """The check runs before training only."""
    path = write("val.json")
    dataset = load(path)
    runner = runner_of(dataset, coco(path), "train")
    hook = HOOKS.build(dict(type="DatasetClassesCheckHook"))
    hook.before_train(runner)
    monkeypatch.setattr(dataset, "get_data_info", lambda index: pytest.fail("read again"))
    hook.before_val(runner)
