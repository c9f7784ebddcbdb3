"""A model and a data set that do not speak of the same classes never start."""

import json
from types import SimpleNamespace

import pytest
from mmdet.datasets import CocoDataset
from mmdet.registry import HOOKS
from mmengine.dataset import ConcatDataset, RepeatDataset

CATEGORIES = ("cat", "dog", "fox")


@pytest.fixture
def make_dataset(tmp_path):
    """A COCO data set of one image, of the annotation file's categories but the given classes."""
    annotations = tmp_path / "instances.json"
    annotations.write_text(
        json.dumps(
            dict(
                images=[dict(id=1, file_name="a.jpg", height=10, width=10)],
                annotations=[
                    dict(id=1, image_id=1, category_id=2, bbox=[1, 1, 4, 4], area=16, iscrowd=0)
                ],
                categories=[dict(id=i + 1, name=name) for i, name in enumerate(CATEGORIES)],
            )
        )
    )

    def make(classes):
        metainfo = dict(classes=classes)
        return CocoDataset(
            ann_file=str(annotations), data_prefix=dict(img=""), metainfo=metainfo, pipeline=[]
        )

    return make


def check(dataset, num_classes, phase="train"):
    hook = HOOKS.build(dict(type="DatasetClassesCheckHook"))
    model = SimpleNamespace(bbox_head=SimpleNamespace(num_classes=num_classes))
    loader = SimpleNamespace(dataset=dataset)
    runner = SimpleNamespace(model=model, **{f"{phase}_dataloader": loader})
    getattr(hook, f"before_{phase}")(runner)


phases = pytest.mark.parametrize("phase", ["train", "val", "test"])


@phases
def test_accepts_what_agrees(make_dataset, phase):
    check(make_dataset(CATEGORIES), 3, phase)
    check(make_dataset(("fox", "cat")), 2, phase)
    check(RepeatDataset(make_dataset(CATEGORIES), times=2), 3, phase)
    check(ConcatDataset([make_dataset(CATEGORIES)] * 2), 3, phase)


@phases
@pytest.mark.parametrize("num_classes", [2, 80])
def test_number_of_classes(make_dataset, phase, num_classes):
    sentence = (
        f"model.bbox_head.num_classes={num_classes}, but {phase}_dataloader.dataset.metainfo."
        r"classes names 3 classes \(cat, dog, fox\); make them agree"
    )
    with pytest.raises(ValueError, match=sentence):
        check(make_dataset(CATEGORIES), num_classes, phase)


def test_one_class_without_its_comma():
    """('cat') is a string; mmdet would take it for three classes c, a, t."""
    dataset = SimpleNamespace(metainfo=dict(classes="cat"))
    with pytest.raises(ValueError, match=r"is the string 'cat'; it must be a tuple: .*\('cat',\)"):
        check(dataset, 3)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda dataset: dataset,
        lambda dataset: RepeatDataset(dataset, 2),
        lambda dataset: ConcatDataset([dataset, dataset]),
    ],
)
def test_names_that_the_annotations_do_not_have(make_dataset, wrap):
    """Mmdet drops their objects in silence."""
    sentence = r"names dgo, which .*instances.json does not have; its categories are cat, dog, fox"
    with pytest.raises(ValueError, match=sentence):
        check(wrap(make_dataset(("cat", "dgo", "fox"))), 3)


def test_names_given_twice(make_dataset):
    with pytest.raises(ValueError, match="classes names cat twice; name it once"):
        check(make_dataset(("cat", "dog", "cat")), 3)


def test_long_lists_are_cut(make_dataset):
    dataset = SimpleNamespace(metainfo=dict(classes=[f"class{i}" for i in range(20)]))
    with pytest.raises(ValueError, match=r"names 20 classes \(class0, .*class7, \.\.\.\)"):
        check(dataset, 3)


@pytest.mark.parametrize(
    "model",
    [SimpleNamespace(), SimpleNamespace(bbox_head=SimpleNamespace())],
    ids=["no head", "no num_classes"],
)
def test_other_models_are_left_alone(make_dataset, model):
    runner = SimpleNamespace(
        model=model, train_dataloader=SimpleNamespace(dataset=make_dataset(CATEGORIES))
    )
    hook = HOOKS.build(dict(type="DatasetClassesCheckHook"))
    hook.before_train(runner)  # raises nothing, though this data set would
    runner.model = SimpleNamespace(bbox_head=SimpleNamespace(num_classes=80))
    with pytest.raises(ValueError, match="num_classes=80"):
        hook.before_train(runner)


def test_checkpoint_of_other_classes_is_not_tested(make_dataset):
    """Mmengine would load what fits, log the rest and report an AP near zero."""
    hook = HOOKS.build(dict(type="DatasetClassesCheckHook"))
    runner = SimpleNamespace(
        model=SimpleNamespace(bbox_head=SimpleNamespace(num_classes=3)),
        test_dataloader=SimpleNamespace(dataset=make_dataset(CATEGORIES)),
    )
    for meta in ({}, dict(dataset_meta=None), dict(dataset_meta=dict(classes=CATEGORIES))):
        hook.after_load_checkpoint(runner, dict(meta=meta))
        hook.before_test(runner)
    for classes in (("cat", "dog"), ("dog", "cat", "fox")):
        hook.after_load_checkpoint(runner, dict(meta=dict(dataset_meta=dict(classes=classes))))
        with pytest.raises(ValueError, match=r"was trained on the classes .* in their order"):
            hook.before_test(runner)
