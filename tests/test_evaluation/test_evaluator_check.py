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
        size = dict(height=50, width=60)
        box = dict(bbox=[x, 1.1, 10.3, 9], area=90, iscrowd=0)
        own = [i for i in ids if i not in empty]
        coco = dict(
            images=[dict(id=i, file_name=f"{prefix}{i}.jpg", **size) for i in ids],
            annotations=[dict(id=i, image_id=i, category_id=1 + i % 2, **box) for i in own],
            categories=[dict(id=n, name=name) for n, name in enumerate(names, start=1)],
        )
        if reverse:
            coco["categories"].reverse()
        path = tmp_path / name
        path.write_text(json.dumps(coco))
        return str(path)

    return write


def load(path, kind=CocoDataset, **options):
    options = dict(test_mode=True, pipeline=[], metainfo=dict(classes=CLASSES)) | options
    return kind(ann_file=path, data_prefix=dict(img="images/"), **options)


def both(first, second):
    return ConcatDataset([load(first), load(second)])


def coco(path, **options):
    return dict(type="CocoMetric", ann_file=path, metric="bbox", **options)


def start(dataset, config, phase="val"):
    """Run the hook's check; return the evaluator, the hook and the runner."""
    build = EVALUATOR.build if "metrics" in config else Evaluator
    evaluator = build(config)
    evaluator.dataset_meta = dataset.metainfo
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset), evaluator=evaluator)
    runner = SimpleNamespace(
        model=SimpleNamespace(),
        cfg={f"{'test' if phase == 'test' else 'val'}_evaluator": config},
        logger=logging.getLogger("evaluator"),
        train_loop=SimpleNamespace(dataloader=loop.dataloader),
        val_loop=None if phase == "test" else loop,
        test_loop=loop,
    )
    hook = HOOKS.build(dict(type="DatasetClassesCheckHook"))
    getattr(hook, f"before_{phase}")(runner)
    return evaluator, hook, runner


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
def test_own_and_other_file(write, phase):
    """Perfect detections would silently have an AP of 0 with the other file."""
    path, other = write("val.json"), write("other.json", x=6)
    dataset = load(path)
    evaluator, *_ = start(dataset, coco(path), phase)
    assert evaluator.metrics[0].img_ids is None
    assert average_precision(evaluator, dataset)["coco/bbox_mAP"] == 1
    with pytest.raises(UserError, match=rf"Image 1\b.*{path}.*_evaluator\.ann_file={other}"):
        start(dataset, coco(other), phase)


NOTHING = dict(empty=range(1, 7))


@pytest.mark.parametrize(
    ("own", "other"),
    [
        ({}, dict(ids=range(11, 17))),
        ({}, dict(reverse=True)),  # the order of classes
        ({}, dict(names=("cat", "fox"))),
        ({}, NOTHING),
        (NOTHING, dict(prefix="b", **NOTHING)),
    ],
)
def test_file_of_other_images(write, own, other):
    dataset, path = load(write("val.json", **own)), write("other.json", **other)
    with pytest.raises(UserError, match=rf"Image 1\b.*{path}"):
        start(dataset, coco(path))
    start(dataset, coco(path, format_only=True, outfile_prefix="x"))  # nothing is evaluated


def test_what_is_accepted(write):
    """The evaluator's file may have more boxes; without a file, it uses the samples' objects."""
    start(load(write("val.json", empty=[2])), coco(write("copy.json")))
    start(load(write("val.json", **NOTHING)), coco(write("val.json", **NOTHING)))
    start(load(write("val.json")), dict(type="CocoMetric"))


@phases
def test_two_data_sets(write, phase):
    first, second, whole = (
        write("a.json", range(1, 4)),
        write("b.json", range(4, 7)),
        write("c.json"),
    )
    dataset = both(first, second)
    evaluator, *_ = start(dataset, coco(whole), phase)
    assert average_precision(evaluator, dataset)["coco/bbox_mAP"] == 1
    with pytest.raises(UserError, match=rf"Image 4\b.*{second}.*{first}"):
        start(dataset, coco(first), phase)


def test_images_with_the_same_id(write):
    """They are allowed if each dataset has a metric."""
    first, second = write("a.json", range(1, 5)), write("b.json", range(3, 7), x=7)
    dataset, whole = both(first, second), write("whole.json")
    with pytest.raises(UserError, match=rf"{first}, {second}.* 3\b.*{whole}"):
        start(dataset, coco(whole))
    with pytest.raises(UserError, match=rf"two images with id 1\b.*{whole}"):
        start(RepeatDataset(load(whole), 2), coco(whole))

    def several(*files):
        metrics = [coco(file) for file in files]
        return dict(type="MultiDatasetsEvaluator", metrics=metrics, dataset_prefixes=["a", "b"])

    evaluator, *_ = start(dataset, several(first, second))
    found = average_precision(evaluator, dataset)
    assert (found["a/coco/bbox_mAP"], found["b/coco/bbox_mAP"]) == (1, 1)
    with pytest.raises(UserError, match=rf"{first}.*{second}"):
        start(dataset, several(second, first))


@phases
def test_some_of_the_images(write, phase, caplog):
    """Objects of other images do not count as missed; AP was 0.337 before."""
    path = write("val.json")
    dataset = load(path, indices=2)
    with caplog.at_level(logging.WARNING):
        evaluator, *_ = start(dataset, coco(path), phase)
    assert caplog.text.count(path) == 2 and "2 of the 6" in caplog.text
    assert average_precision(evaluator, dataset)["coco/bbox_mAP"] == 1


@pytest.mark.parametrize("test_mode", [True, False])
def test_filtered_images(write, test_mode):
    """Only a dataset that is not in test mode drops images without objects."""
    path = write("val.json", empty=[2, 5])
    dataset = load(path, test_mode=test_mode, filter_cfg=dict(filter_empty_gt=True))
    evaluator, *_ = start(dataset, coco(path))
    assert evaluator.metrics[0].img_ids == (None if test_mode else [1, 3, 4, 6])


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
    start(load(path, Own), coco(path))
    with pytest.raises(UserError, match=path):
        start(load(path, Own), coco(write("other.json", range(11, 17))))


def test_is_checked_once(write, monkeypatch):
    """The check runs before training only."""
    path = write("val.json")
    dataset = load(path)
    _, hook, runner = start(dataset, coco(path), "train")
    monkeypatch.setattr(dataset, "get_data_info", lambda index: pytest.fail("read again"))
    hook.before_val(runner)
