"""A run does not start if model and dataset have different classes."""

import json
from types import SimpleNamespace

import mmcv
import pytest
from mmdet.apis import DetInferencer
from mmdet.datasets import CocoDataset, ConcatDataset
from mmdet.registry import DATASETS, HOOKS
from mmengine.config import Config
from mmengine.dataset import RepeatDataset
from mmengine.evaluator import Evaluator
from support.coco import add, changed
from support.runs import CLASSES, val_images
from support.runs import make_runner as full_runner

from fastdetr_mmdet.utils.cli import UserError

CATEGORIES = ("cat", "dog", "fox")


@pytest.fixture
def make_dataset(tmp_path):
    """A COCO dataset of one image with the given classes."""
    annotations = tmp_path / "instances.json"
    annotations.write_text(json.dumps(changed(add("categories", id=3, name="fox"))))

    def make(classes, **more):
        metainfo = dict(classes=classes, **more)
        return CocoDataset(
            ann_file=str(annotations), data_prefix=dict(img=""), metainfo=metainfo, pipeline=[]
        )

    return make


def make_runner(dataset, num_classes, phase="train", evaluator=None):
    """A minimal runner for the hook."""
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset), evaluator=evaluator)
    return SimpleNamespace(
        model=SimpleNamespace(bbox_head=SimpleNamespace(num_classes=num_classes)),
        visualizer=SimpleNamespace(),
        cfg={},
        **{"val_loop": None, f"{phase}_loop": loop},
    )


def check(dataset, num_classes, phase="train"):
    hook = HOOKS.build(dict(type="DatasetClassesCheckHook"))
    getattr(hook, f"before_{phase}")(make_runner(dataset, num_classes, phase))


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
    with pytest.raises(UserError, match=rf"num_classes={num_classes}\b.* 3 classes") as error:
        check(make_dataset(CATEGORIES), num_classes, phase)
    assert f"{phase}_dataloader.dataset.metainfo.classes" in str(error.value)


WRAPPERS = {
    "RepeatDataset": lambda a, b: repeat(b),
    "ConcatDataset": lambda a, b: concat(a, b),
    "ClassBalancedDataset": lambda a, b: dict(
        type="ClassBalancedDataset", oversample_thr=0.1, dataset=b
    ),
    "MultiImageMixDataset": lambda a, b: dict(type="MultiImageMixDataset", dataset=b, pipeline=[]),
    "nested": lambda a, b: repeat(concat(a, repeat(b))),
}
HAS_SEVERAL = ("ConcatDataset", "nested")


def repeat(dataset):
    return dict(type="RepeatDataset", times=2, dataset=dataset)


def concat(*datasets):
    return dict(type="ConcatDataset", datasets=list(datasets))


def wrap(name, first, second):
    return DATASETS.build(WRAPPERS[name](first, second))


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrapped_data_sets(make_dataset, name):
    dataset = wrap(name, make_dataset(CATEGORIES), make_dataset(("cat", "dog")))
    with pytest.raises(UserError, match=r"num_classes=3\b.* 2 classes"):
        check(dataset, 3)


@phases
@pytest.mark.parametrize("name", HAS_SEVERAL)
def test_members_with_other_palettes(make_dataset, phase, name):
    """mmdet's ConcatDataset makes a list of meta information, which nothing can read."""
    first, second = make_dataset(CATEGORIES, palette=[(1, 2, 3)] * 3), make_dataset(CATEGORIES)
    dataset = wrap(name, first, second)
    assert isinstance(dataset.metainfo, list)
    evaluator = Evaluator(dict(type="CocoMetric"))
    runner = make_runner(dataset, 3, phase, evaluator if phase != "train" else None)
    hook = HOOKS.build(dict(type="DatasetClassesCheckHook"))
    getattr(hook, f"before_{phase}")(runner)
    assert dataset.metainfo["palette"] == first.metainfo["palette"]
    assert runner.visualizer.dataset_meta["classes"] == CATEGORIES
    if phase != "train":
        assert evaluator.metrics[0].dataset_meta["classes"] == CATEGORIES


@pytest.mark.parametrize("name", HAS_SEVERAL)
def test_members_with_other_classes(make_dataset, name):
    """Label 0 would mean cat in one and dog in the other."""
    dataset = wrap(name, make_dataset(CATEGORIES), make_dataset(("dog", "cat", "fox")))
    with pytest.raises(UserError, match=r"\.1(\.dataset)?\.metainfo\.classes.* dog"):
        check(dataset, 3)


def test_checkpoint_of_members_with_other_palettes(make_dataset):
    """Older versions stored a list."""
    hook = HOOKS.build(dict(type="DatasetClassesCheckHook"))
    meta = dict(classes=CATEGORIES)
    hook.after_load_checkpoint(None, dict(meta=dict(dataset_meta=[meta, meta])))
    hook.before_test(make_runner(make_dataset(CATEGORIES), 3, "test"))
    with pytest.raises(UserError, match="fox, cat"):
        hook.before_test(make_runner(make_dataset(("fox", "cat")), 2, "test"))


def test_a_test_after_training_goes_by_the_training_s_classes(make_dataset):
    """Even if load_from had other classes."""
    hook = HOOKS.build(dict(type="DatasetClassesCheckHook"))
    hook.after_load_checkpoint(None, dict(meta=dict(dataset_meta=dict(classes=("lorry",)))))
    hook.before_train(make_runner(make_dataset(CATEGORIES), 3))
    hook.before_test(make_runner(make_dataset(CATEGORIES), 3, "test"))


@pytest.mark.parametrize(
    ("classes", "num_classes", "named"),
    [
        (("cat", "dog", "cat"), 3, "cat twice"),
        ([f"class{i}" for i in range(20)], 3, r"20 classes.*class7, \.\.\."),
        ("cat", 3, r"'cat'.*\('cat',\)"),  # ('cat') is a string: classes c, a, t for mmdet
    ],
)
def test_classes_that_cannot_be_meant(classes, num_classes, named):
    with pytest.raises(UserError, match=named):
        check(SimpleNamespace(metainfo=dict(classes=classes)), num_classes)


@pytest.mark.parametrize("head", [{}, dict(bbox_head=SimpleNamespace())])
def test_other_models_are_left_alone(make_dataset, head):
    """Those without a head, or without its number of classes."""
    runner = make_runner(make_dataset(CATEGORIES), 80)
    runner.model = SimpleNamespace(**head)
    HOOKS.build(dict(type="DatasetClassesCheckHook")).before_train(runner)


def test_checkpoint_of_other_classes_is_not_tested(make_dataset):
    """mmengine would load what fits, log the rest, and report an AP near zero."""
    hook = HOOKS.build(dict(type="DatasetClassesCheckHook"))
    runner = make_runner(make_dataset(CATEGORIES), 3, "test")
    for meta in ({}, dict(dataset_meta=None), dict(dataset_meta=dict(classes=CATEGORIES))):
        hook.after_load_checkpoint(runner, dict(meta=meta))
        hook.before_test(runner)
    for classes in (("cat", "dog"), ("dog", "cat", "fox")):
        hook.after_load_checkpoint(runner, dict(meta=dict(dataset_meta=dict(classes=classes))))
        with pytest.raises(UserError, match=", ".join(classes)):
            hook.before_test(runner)


def test_run_on_members_with_other_palettes_and_without_resize(tiny_config_file, shapes, tmp_path):
    """From training to DetInferencer; every step failed before."""
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", with_bbox=True),
        dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape")),
    ]
    config = Config.fromfile(tiny_config_file)
    member = config.train_dataloader.dataset
    member.update(data_root=str(shapes), indices=4, pipeline=pipeline)
    other = dict(member, metainfo=dict(member.metainfo, palette=[(n, n, n) for n in range(6)]))
    evaluated = dict(member, test_mode=True)
    options = dict(
        train_dataloader__dataset=dict(concat(member, other), _delete_=True),
        val_dataloader__dataset=dict(concat(evaluated), _delete_=True),
        test_dataloader__dataset=dict(evaluated, _delete_=True),  # DetInferencer reads its pipeline
        val_evaluator__ann_file=f"{shapes}/annotations/train.json",
        test_evaluator__ann_file=f"{shapes}/annotations/train.json",
        train_cfg__max_epochs=1,
    )
    runner = full_runner(tiny_config_file, tmp_path, shapes, **options)
    runner.train()
    path = str(tmp_path / "epoch_1.pth")
    full_runner(tiny_config_file, tmp_path, shapes, load_from=path, **options).test()
    inferencer = DetInferencer(runner.cfg, path, device="cpu", show_progress=False)
    assert tuple(inferencer.model.dataset_meta["classes"]) == CLASSES
    (image, *_) = val_images(shapes)
    (found,) = inferencer(image)["predictions"]
    h, w = mmcv.imread(image).shape[:2]
    assert max(box[2] for box in found["bboxes"]) > 0.9 * w - 64
    assert all(0 <= x <= w and 0 <= y <= h for x, y, *_ in found["bboxes"])
