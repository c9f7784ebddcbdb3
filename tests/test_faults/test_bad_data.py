"""Training on wrong data skips it with a count, or stops before the first step."""

import gc
import json
import logging
import math
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmdet.datasets import CocoDataset, VOCDataset
from mmdet.datasets.base_det_dataset import BaseDetDataset
from mmdet.registry import DATASETS, HOOKS
from mmengine.config import Config
from mmengine.dataset import Compose, ConcatDataset, RepeatDataset
from support.coco import box, drop, each, image
from support.runs import CLASSES, change_annotations, log_rows, make_runner

from fastdetr_mmdet import DatasetCheckHook
from fastdetr_mmdet.datasets.check import check_annotations, read_coco, sets
from fastdetr_mmdet.engine.hooks import dataset_check


@pytest.fixture(autouse=True)
def loading_as_before(monkeypatch):
    """Undo the watch on datasets of hooks without a run."""
    monkeypatch.setattr(BaseDetDataset, "full_init", BaseDetDataset.full_init)


@pytest.fixture
def change_set(shapes, tmp_path):
    """Writes changed annotations and returns the options to use them."""

    def write(change, split="train"):
        path = tmp_path / f"{split}.json"
        change_annotations(shapes / f"annotations/{split}.json", path, change)
        options = {f"{split}_ann": str(path)}
        return options | ({"val_evaluator__ann_file": str(path)} if split == "val" else {})

    return write


@pytest.fixture
def runner(tiny_config_file, shapes, tmp_path):
    """Makes a runner of one epoch without validation."""

    def make(**options):
        options = dict(train_cfg__max_epochs=1, train_cfg__val_begin=9, **options)
        return make_runner(tiny_config_file, tmp_path / "work", shapes, **options)

    return make


def before(hook, phase="test", dataset=None, val=None):
    """Call a hook like a runner before the first step."""
    datasets = {phase: dataset} | ({} if val is None else {"val": val})
    loaders = {f"{split}_dataloader": SimpleNamespace(dataset=d) for split, d in datasets.items()}
    loops = dict(val_loop=val, _train_loop=None, _val_loop=None, _test_loop=None)
    runner = SimpleNamespace(logger=logging.getLogger("check"), **loops, **loaders)
    hook.before_run(runner)
    getattr(hook, f"before_{phase}")(runner)
    return dataset


@pytest.fixture
def start(tiny_config_file, shapes):
    """Builds data like a runner, and calls the hook; returns the dataset."""

    def run(phase="train", hook=None, **options):
        config = Config.fromfile(tiny_config_file)
        config.merge_from_dict({"data_root": f"{shapes}/"})
        config.merge_from_dict({key.replace("__", "."): value for key, value in options.items()})
        (shipped,) = [one for one in config.custom_hooks if one.type == "DatasetCheckHook"]
        hook = HOOKS.build(hook or shipped)
        # mmengine's slow garbage collection in serialization
        datasets = [
            DATASETS.build(dict(config[f"{split}_dataloader"].dataset, serialize_data=False))
            for split in (("train", "val") if phase == "train" else (phase,))
        ]
        return before(hook, phase, *datasets)

    return run


# All kinds: tests/test_datasets/test_check.py
STOPS = [
    # mmdet fails before calling hooks
    ("bbox-malformed", drop("bbox"), "train"),
    ("bbox-malformed", drop("bbox"), "val"),
    ("annotation-malformed", lambda c: c["annotations"].append(None), "train"),
    ("file-name", drop("file_name", "images"), "train"),
    ("category-malformed", drop("name", "categories"), "train"),
    ("no-images", lambda c: c["images"].clear(), "train"),
    # mmdet silently drops or uses it
    ("bbox-not-finite", box(bbox=[1, 2, math.nan, 4]), "train"),
    ("image-id-twice", image(id=2), "train"),
    # fails later
    ("iscrowd-missing", drop("iscrowd"), "val"),
    ("file-missing", image(file_name="none.jpg"), "val"),
    ("file-size", each("images", width=99), "train"),
    ("path-outside", image(file_name="../../x/../../../etc/hosts"), "train"),
]


@pytest.mark.parametrize("kind, change, split", STOPS)
def test_stops(start, change_set, kind, change, split):
    """The message equals the command line's for the same file."""
    options = change_set(change, split)
    with pytest.raises(ValueError, match=rf"\[{kind}\]") as error:
        start(**options)
    path = options[f"{split}_ann"]
    message = str(error.value)
    assert message.startswith(path)
    report = check_annotations(read_coco(path), path, evaluated=split == "val")
    for finding in report.stopping():
        assert f"- {report.sentence(finding)} [{finding.kind.name}]\n" in message


@pytest.mark.smoke
@pytest.mark.parametrize("kind, change", [("bbox-malformed", drop("bbox")), ("area", box(area=0))])
def test_stops_a_run_before_the_first_step(runner, change_set, no_steps, kind, change):
    """Both if mmdet would fail before calling hooks, and if it would continue silently."""
    options = change_set(change)
    full_init = BaseDetDataset.full_init
    with pytest.raises(ValueError, match=rf"{options['train_ann']}.*\n.*\[{kind}\]"):
        runner(**options).train()
    assert BaseDetDataset.full_init is full_init


SKIPPED = [
    ("bbox-zero", box(bbox=[10, 10, 0, 0]), 1),
    ("bbox-outside", box(bbox=[900, 10, 5, 5]), 1),
    ("bbox-subpixel", box(bbox=[10, 10, 0.5, 9]), 1),
    ("marked-ignore", box(ignore=1), 1),
    ("bbox-partly-outside", box(bbox=[-20, 10, 30, 9]), 0),
    ("image-crowds-only", each("annotations", iscrowd=1), 0),
    ("image-empty", lambda c: c["annotations"].clear(), 0),
]


@pytest.mark.parametrize("kind, change, skipped", SKIPPED)
def test_skips_with_a_count(start, change_set, caplog, tmp_path, kind, change, skipped):
    caplog.set_level(logging.INFO, "check")
    options = change_set(change)
    dataset = start(**options)
    (line,) = [m for m in caplog.messages if options["train_ann"] in m]
    assert f"skipped: {skipped};" in line and f"[{kind}]" in line
    written = len(json.loads((tmp_path / "train.json").read_text())["annotations"])
    found = sum(len(dataset.get_data_info(n)["instances"]) for n in range(len(dataset)))
    assert found == written - skipped


@pytest.mark.smoke
def test_trains_on_what_it_skips(runner, change_set, tmp_path):
    def all_of_them(coco):
        for n, (_, change, _) in enumerate(SKIPPED[:-2]):
            coco["annotations"].insert(0, dict(coco["annotations"][-1], id=1000 + n))
            change(coco)

    run = runner(**change_set(all_of_them))
    run.train()
    rows = log_rows(tmp_path / "work")
    assert len(rows) == 4 and all(math.isfinite(row["loss"]) for row in rows)
    log = "".join(path.read_text() for path in tmp_path.glob("work/*/*.log"))
    (train, val) = re.findall(r"(INFO|WARNING) - (Data check of .*)", log)
    assert train[0] == "WARNING" and "skipped: 4;" in train[1]
    assert val[0] == "INFO" and "val.json" in val[1]
    for loader in (run.train_dataloader, run.val_dataloader):
        assert type(loader.dataset.pipeline) is Compose  # given back
        assert not hasattr(loader.dataset, "parsed_annotations")


def test_allowed_and_turned_off(start, change_set, monkeypatch, caplog):
    options = change_set(box(area=0))
    start(hook=dict(type="DatasetCheckHook", allow=["area"]), **options)
    assert "skipped: 1;" in caplog.text and "[area]" in caplog.text
    caplog.clear()
    monkeypatch.setattr(dataset_check, "check_set", lambda *_, **__: pytest.fail("checked"))
    start(hook=dict(type="DatasetCheckHook", enabled=False), **options)
    assert caplog.text == ""
    with pytest.raises(ValueError, match="areas"):
        DatasetCheckHook(allow=["area", "areas"])
    assert DatasetCheckHook(allow="area").allow == ("area",)


@pytest.mark.parametrize("phase", ["val", "test"])
def test_paths_are_looked_at_without_the_files(start, change_set, phase):
    hook = dict(type="DatasetCheckHook", find_images=False)
    start(phase, hook=hook, **change_set(image(file_name="none.jpg"), "val"))
    with pytest.raises(ValueError, match="path-outside"):
        start(phase, hook=hook, **change_set(image(file_name="../../etc/hosts"), "val"))


def test_annotations_are_read_once(start, monkeypatch):
    monkeypatch.setattr(sets, "read_coco", lambda *_: pytest.fail("read again"))
    start()


# --------------------------------------------------------------------------------------------------
# Images that cannot be read in the middle of training


@pytest.fixture
def with_image(shapes, tmp_path):
    """Copies the training images, with another third one."""

    def copy(content):
        (tmp_path / "train").mkdir()
        for path in (shapes / "train").iterdir():
            (tmp_path / "train" / path.name).write_bytes(path.read_bytes())
        path = tmp_path / "train/000003.jpg"
        path.write_bytes(path.read_bytes()[:800] if content is None else content)
        return path, dict(train_images=f"{tmp_path}/train/")

    return copy


NO_LOOK = dict(type="DatasetCheckHook", read_images=False)


THIN = cv2.imencode(".png", np.zeros((1, 3000, 3), np.uint8))[1].tobytes()


@pytest.mark.parametrize(
    "content, named, error",
    [
        (b"", r"\[file-unreadable", OSError),
        (b"no image", r"\[file-unreadable", OSError),
        (None, r"\[file-truncated", OSError),
        (THIN, r"Resize: .*\[image-too-thin", ValueError),
    ],
)
def test_unusable_image(start, with_image, change_set, content, named, error):
    """Found before the first step, and named when loaded, which OpenCV does not do."""
    path, options = with_image(content)
    if content == THIN:
        options |= change_set(lambda c: c["images"][2].update(width=3000, height=1))
    with pytest.raises(ValueError, match=rf"image 3 \(000003.jpg, .*{named}"):
        start(**options)
    dataset = start(hook=NO_LOOK, **options)
    with pytest.raises(error, match=rf"{path} \(image id 3\)"):
        [dataset[n] for n in range(len(dataset))]


def test_images_are_not_read_while_other_processes_wait(start, with_image, monkeypatch):
    monkeypatch.setattr(dataset_check, "get_world_size", lambda: 2)
    start(**with_image(b"")[1])


def test_unreadable_image_is_named_by_a_worker(runner, with_image):
    path, options = with_image(b"")
    with pytest.raises(OSError, match=rf"{path} \(image id 3\)"):
        runner(custom_hooks=[NO_LOOK], train_dataloader__num_workers=1, **options).train()


# --------------------------------------------------------------------------------------------------
# The hook by itself


@pytest.fixture
def coco_dataset(shapes):
    """Makes datasets of the embedded or other annotations."""

    def make(ann_file="annotations/val.json", cls=CocoDataset, **options):
        pipeline = [dict(type="LoadImageFromFile")]
        options = dict(pipeline=pipeline, test_mode=True, serialize_data=False) | options
        folders = dict(data_root=str(shapes), data_prefix=dict(img="val/"))
        return cls(ann_file=ann_file, metainfo=dict(classes=CLASSES), **folders, **options)

    return make


def test_other_data_sets_are_left_alone(coco_dataset, caplog):
    class Own(CocoDataset):
        """A custom dataset."""

        def parse_data_info(self, raw_data_info):
            return super().parse_data_info(raw_data_info)

    caplog.set_level(logging.INFO, "check")
    hook = DatasetCheckHook()
    elsewhere = coco_dataset()
    elsewhere.data_prefix = dict(img="s3://bucket/val/")  # only its annotations
    before(hook, "test", elsewhere)
    caplog.clear()
    for dataset in (SimpleNamespace(metainfo={}), [1, 2], coco_dataset(cls=Own)):
        for phase in ("train", "val", "test"):
            before(hook, phase, dataset)
    assert caplog.messages == []


def test_wrapped_data_sets_are_checked_once(coco_dataset, caplog):
    caplog.set_level(logging.INFO, "check")
    hook = DatasetCheckHook()
    parts = [coco_dataset(), coco_dataset()]
    for dataset in (RepeatDataset(parts[0], times=2), ConcatDataset(parts), ConcatDataset(parts)):
        before(hook, "val", dataset)
    assert len(caplog.messages) == 1
    for part in parts:
        assert isinstance(part.pipeline, sets.NamedPipeline)
        assert part[0]["img"].shape
        assert not hasattr(part, "parsed_annotations")


def test_files_of_images_to_detect_in_need_no_annotations(coco_dataset, shapes, tmp_path):
    path = tmp_path / "image_info.json"
    change_annotations(shapes / "annotations/val.json", path, lambda c: c.pop("annotations"))
    dataset = coco_dataset(str(path))
    before(DatasetCheckHook(), "test", dataset)
    with pytest.raises(ValueError, match="'annotations'"):
        before(DatasetCheckHook(), "val", dataset)


def test_no_file_gets_past_the_check_by_breaking_it(coco_dataset, monkeypatch):
    def fail(*_, **__):
        raise IndexError("a mistake")

    monkeypatch.setattr(dataset_check, "check_set", fail)
    with pytest.raises(ValueError, match=r"val.json.*IndexError\('a mistake'\)"):
        before(DatasetCheckHook(), "test", coco_dataset())


def test_all_processes_stop_though_one_checks(coco_dataset, monkeypatch):
    monkeypatch.setattr(dataset_check, "is_main_process", lambda: False)
    monkeypatch.setattr(dataset_check, "check_set", lambda *_, **__: pytest.fail("checked"))

    def receive(objects):
        assert not any(objects)
        objects[0] = "What the first process found."

    monkeypatch.setattr(dataset_check, "broadcast_object_list", receive)
    with pytest.raises(ValueError, match="What the first process found"):
        before(DatasetCheckHook(), "test", coco_dataset())


def test_errors_of_loading_that_the_check_knows_nothing_of_stay(tmp_path, coco_dataset):
    hook = DatasetCheckHook()
    with pytest.raises(FileNotFoundError):
        CocoDataset(ann_file=str(tmp_path / "none.json"), data_prefix=dict(img=""))
    with pytest.raises(ValueError, match="need at least one array"):
        coco_dataset(filter_cfg=dict(min_size=10_000), test_mode=False, serialize_data=True)
    del hook


@pytest.fixture
def voc_dataset(tmp_path):
    """Makes a VOC dataset with one image per list of object names."""

    def make(objects, classes, **options):
        for folder in ("Annotations", "JPEGImages"):
            (tmp_path / folder).mkdir(exist_ok=True)
        for n, names in enumerate(objects):
            text = "".join(
                f"<object><name>{name}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>"
                "<ymax>9</ymax></bndbox></object>"
                for name in names
            )
            size = "<size><width>20</width><height>20</height></size>"
            path = tmp_path / f"Annotations/{n}.xml"
            path.write_text(f"<annotation>{size}{text}</annotation>")
        (tmp_path / "list.txt").write_text("\n".join(map(str, range(len(objects)))))
        return VOCDataset(
            ann_file=str(tmp_path / "list.txt"),
            data_prefix=dict(sub_data_root=str(tmp_path)),
            metainfo=dict(classes=classes),
            pipeline=[dict(type="LoadImageFromFile")],
            **options,
        )

    return make


@pytest.mark.parametrize(
    "objects, classes, named",
    [
        ([["a"], ["b", "a"]], ("A", "b"), r"'A'.*'a'"),
        ([["traffic light"], ["x"]], ("traffic_light", "x"), r"'traffic_light'.*'traffic light'"),
        ([["a"]], ("x", "y"), r"'x'.*'a'"),
        ([["1", "2"]], (1, 2), r"1;.*'1'"),
    ],
)
@pytest.mark.parametrize("filter_cfg", [None, dict(filter_empty_gt=True)], ids=["all", "filter"])
def test_voc_names_that_are_spelt_otherwise(voc_dataset, objects, classes, named, filter_cfg):
    """mmdet silently drops their objects, and fails on an empty dataset if it filters."""
    hook = DatasetCheckHook()  # a runner builds hooks before datasets
    with pytest.raises(ValueError, match=named) as error:
        before(hook, "train", voc_dataset(objects, classes, filter_cfg=filter_cfg))
    assert "list.txt" in str(error.value) and "[class-without-category]" in str(error.value)


def test_voc_classes_that_are_only_rare(voc_dataset):
    for objects, classes in (([["a"]], ("a", "b")), ([["cat"], ["train"]], ("cat", "dog"))):
        before(DatasetCheckHook(), "train", voc_dataset(objects, classes))
    before(DatasetCheckHook(allow="class-without-category"), "train", voc_dataset([["a"]], ("A",)))


def test_a_hook_that_no_run_calls_leaves_nothing_behind():
    before = BaseDetDataset.full_init
    hook = DatasetCheckHook()
    assert BaseDetDataset.full_init is not before
    del hook
    gc.collect()
    assert BaseDetDataset.full_init is before
