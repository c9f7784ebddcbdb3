"""Training on wrong data works, skipping with a count, or stops before the first step."""

import json
import logging
import math
import re
from types import SimpleNamespace

import pytest
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS, HOOKS
from mmengine.config import Config
from mmengine.dataset import ConcatDataset, RepeatDataset
from support.runs import change_annotations, log_rows, make_runner

from fastdetr_mmdet import DatasetCheckHook, FastDETR
from fastdetr_mmdet.datasets.check import check_annotations, loading, read_coco
from fastdetr_mmdet.engine.hooks import dataset_check


@pytest.fixture
def spoil(shapes, tmp_path):
    """Writes changed annotations and returns the options that let a run use them."""

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


@pytest.fixture
def start(tiny_config_file, shapes):
    """Does what a runner does with the data before the first step, without a model."""

    def run(phase="train", hook=None, **options):
        config = Config.fromfile(tiny_config_file)
        config.merge_from_dict({"data_root": f"{shapes}/"})
        config.merge_from_dict({key.replace("__", "."): value for key, value in options.items()})
        (shipped,) = [one for one in config.custom_hooks if one.type == "DatasetCheckHook"]
        hook = HOOKS.build(hook or shipped)
        loaders = {}
        for split in ("train", "val") if phase == "train" else (phase,):
            # mmengine collects garbage when it serializes, which takes most of the time
            dataset = dict(config[f"{split}_dataloader"].dataset, serialize_data=False)
            loaders[f"{split}_dataloader"] = SimpleNamespace(dataset=DATASETS.build(dataset))
        runner = SimpleNamespace(logger=logging.getLogger("check"), val_loop=True, **loaders)
        getattr(hook, f"before_{phase}")(runner)
        return runner

    return run


@pytest.fixture
def no_steps(monkeypatch):
    """Any step of the model fails the test."""
    for name in ("loss", "predict"):
        monkeypatch.setattr(
            FastDETR, name, lambda *args, **kwargs: pytest.fail("The model was run.")
        )


def log_of(tmp_path):
    return "".join(path.read_text() for path in tmp_path.glob("work/*/*.log"))


def set_box(key, value, n=0):
    return lambda coco: coco["annotations"][n].update({key: value})


def drop(key, of="annotations"):
    return lambda coco: coco[of][0].pop(key)


def set_image(key, value):
    return lambda coco: coco["images"][0].update({key: value})


STOPS = {
    # what mmdet ends on before any hook is called
    "no bbox": (drop("bbox"), "train", "bbox-malformed"),
    "bbox of strings": (set_box("bbox", ["1", "2", "3", "4"]), "train", "bbox-malformed"),
    "no area": (drop("area"), "train", "area"),
    "no image_id": (drop("image_id"), "train", "unknown-image"),
    "no category_id": (drop("category_id"), "train", "unknown-category"),
    "no id": (drop("id"), "train", "annotation-id"),
    "id twice": (set_box("id", 2), "train", "annotation-id-twice"),
    "annotation null": (lambda c: c["annotations"].append(None), "train", "annotation-malformed"),
    "no file_name": (drop("file_name", "images"), "train", "file-name"),
    "no width": (drop("width", "images"), "train", "image-size"),
    "no name": (drop("name", "categories"), "train", "category-malformed"),
    "no images": (lambda c: c["images"].clear(), "train", "no-images"),
    "val without bbox": (drop("bbox"), "val", "bbox-malformed"),
    # what it drops or takes in silence
    "NaN": (set_box("bbox", [1, 2, math.nan, 4]), "train", "bbox-not-finite"),
    "infinite": (set_box("bbox", [1, 2, math.inf, 4]), "train", "bbox-not-finite"),
    "negative": (set_box("bbox", [50, 2, -9, 4]), "train", "bbox-negative"),
    "zero area": (set_box("area", 0), "train", "area"),
    "image_id in letters": (set_box("image_id", "1"), "train", "unknown-image"),
    "other category": (set_box("category_id", 7), "train", "unknown-category"),
    "iscrowd in letters": (set_box("iscrowd", "0"), "train", "iscrowd"),
    "image twice": (set_image("id", 2), "train", "image-id-twice"),
    "file twice": (set_image("file_name", "000002.jpg"), "train", "file-shared"),
    "order": (lambda c: c["categories"].reverse(), "train", "class-order"),
    "no categories": (lambda c: c["categories"].clear(), "train", "no-categories"),
    "category twice": (
        lambda c: c["categories"].append(c["categories"][0] | {"id": 7}),
        "train",
        "category-name-twice",
    ),
    "name no string": (
        lambda c: c["categories"][0].update(name=5),
        "train",
        "category-malformed",
    ),
    # what fails later
    "no iscrowd": (drop("iscrowd"), "val", "iscrowd-missing"),
    "no file": (set_image("file_name", "none.jpg"), "train", "file-missing"),
    "no file in val": (set_image("file_name", "none.jpg"), "val", "file-missing"),
    "out": (set_image("file_name", "../../x/../../../etc/hosts"), "train", "path-outside"),
    "absolute": (set_image("file_name", "/etc/hosts"), "val", "path-outside"),
}


@pytest.mark.parametrize("name", STOPS)
def test_stops(start, spoil, name):
    """The message is that of the command line, for the same file."""
    change, split, kind = STOPS[name]
    options = spoil(change, split)
    with pytest.raises(ValueError, match="cannot be trained or tested on as it is") as error:
        start(**options)
    path = options[f"{split}_ann"]
    message = str(error.value)
    assert message.startswith(f"{path} cannot be trained or tested on as it is:\n- ")
    assert f"[{kind}]" in message
    report = check_annotations(read_coco(path), path, evaluated=split == "val")
    for finding in report.stopping():
        assert f"- {report.sentence(finding)} [{finding.kind.name}]\n" in message


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["no bbox", "NaN"])
def test_stops_a_run_before_the_first_step(runner, spoil, no_steps, name):
    """Where mmdet fails before it calls any hook, and where it goes on in silence."""
    change, split, kind = STOPS[name]
    options = spoil(change, split)
    with pytest.raises(
        ValueError, match=rf"^{options['train_ann']} cannot be trained .*\n.*\[{kind}"
    ):
        runner(**options).train()


SKIPPED = {
    "of zero area": (set_box("bbox", [10, 10, 0, 0]), 1, "bbox-zero"),
    "outside": (set_box("bbox", [900, 10, 5, 5]), 1, "bbox-outside"),
    "smaller than a pixel": (set_box("bbox", [10, 10, 0.5, 9]), 1, "bbox-subpixel"),
    "marked": (set_box("ignore", 1), 1, "marked-ignore"),
    "at the border": (set_box("bbox", [-20, 10, 30, 9]), 0, "bbox-partly-outside"),
    "crowds": (
        lambda c: [a.update(iscrowd=1) for a in c["annotations"] if a["image_id"] == 2],
        0,
        "image-crowds-only",
    ),
    "nothing": (lambda c: c["annotations"].clear(), 0, "image-empty"),
}


def instances(dataset):
    return sum(len(dataset.get_data_info(n)["instances"]) for n in range(len(dataset)))


@pytest.mark.parametrize("name", SKIPPED)
def test_skips_with_a_count(start, spoil, caplog, tmp_path, name):
    change, skipped, kind = SKIPPED[name]
    caplog.set_level(logging.INFO, "check")
    options = spoil(change)
    started = start(**options)
    (line,) = [m for m in caplog.messages if m.startswith(f"Data check of {options['train_ann']}")]
    count = f"{skipped} boxes are skipped; " if skipped else "no box is skipped; "
    assert count in line and f"[{kind}]" in line
    written = len(json.loads((tmp_path / "train.json").read_text())["annotations"])
    assert instances(started.train_dataloader.dataset) == written - skipped


@pytest.mark.smoke
def test_trains_on_what_it_skips(runner, spoil, tmp_path):
    def all_of_them(coco):
        for n, (change, *_) in enumerate(list(SKIPPED.values())[:-1]):
            coco["annotations"].insert(0, dict(coco["annotations"][-1], id=1000 + n))
            change(coco)

    options = spoil(all_of_them)
    runner(**options).train()
    rows = log_rows(tmp_path / "work")
    assert len(rows) == 4 and all(math.isfinite(row["loss"]) for row in rows)
    lines = re.findall(r"(INFO|WARNING) - (Data check of .*)", log_of(tmp_path))
    assert len(lines) == 2
    assert lines[0][0] == "WARNING" and "4 boxes are skipped; " in lines[0][1]
    assert lines[1][0] == "INFO" and "no box is skipped; " in lines[1][1]
    for _, line in lines:
        assert float(re.search(r"\((\d+\.\d) s\)$", line)[1]) < 1


def test_allowed(start, spoil, caplog):
    hook = dict(type="DatasetCheckHook", allow=["area"])
    start(hook=hook, **spoil(set_box("area", 0)))
    assert "1 boxes are skipped; " in caplog.text
    assert "1 x good box whose 'area' is missing or no positive number [area]" in caplog.text


def test_turned_off(start, spoil, monkeypatch, caplog):
    monkeypatch.setattr(dataset_check, "check_set", lambda *_, **__: pytest.fail("checked"))
    start(hook=dict(type="DatasetCheckHook", enabled=False), **spoil(set_box("area", 0)))
    assert "Data check" not in caplog.text


@pytest.mark.parametrize("phase", ["val", "test"])
def test_sets_to_evaluate(start, spoil, phase):
    with pytest.raises(ValueError, match="path-outside"):
        start(phase, **spoil(set_image("file_name", "../../etc/hosts"), "val"))


# --------------------------------------------------------------------------------------------------
# Images that turn out unreadable in the middle of training


@pytest.fixture
def with_broken_image(shapes, tmp_path):
    """Copies the training images, one of them spoilt."""

    def copy(content):
        (tmp_path / "train").mkdir()
        for path in (shapes / "train").iterdir():
            (tmp_path / "train" / path.name).write_bytes(path.read_bytes())
        broken = tmp_path / "train/000003.jpg"
        broken.write_bytes(broken.read_bytes()[:800] if content is None else content)
        return broken, dict(train_images=f"{tmp_path}/train/")

    return copy


NO_LOOK = dict(type="DatasetCheckHook", read_images=False)
BROKEN = pytest.mark.parametrize("content", [b"", b"no image", None], ids=["empty", "text", "half"])


@BROKEN
def test_unreadable_image_is_named(start, with_broken_image, content):
    """OpenCV's own error for an empty file names none."""
    broken, options = with_broken_image(content)
    dataset = start(hook=NO_LOOK, **options).train_dataloader.dataset
    with pytest.raises(OSError) as error:
        [dataset[n] for n in range(len(dataset))]
    assert f"Image file {broken} (image id 3) cannot be read: " in str(error.value)
    assert "python -m fastdetr_mmdet.datasets.check finds all such files" in str(error.value)


def test_unreadable_image_is_named_by_a_worker(runner, with_broken_image):
    broken, options = with_broken_image(b"")
    with pytest.raises(OSError) as error:
        runner(custom_hooks=[NO_LOOK], train_dataloader__num_workers=1, **options).train()
    assert f"Image file {broken} (image id 3) cannot be read: " in str(error.value)


@BROKEN
def test_unreadable_image_stops_before_the_first_step(start, with_broken_image, content):
    _, options = with_broken_image(content)
    with pytest.raises(ValueError, match=r"image 3 \(000003.jpg, .*\[file-(unread|trunc)"):
        start(**options)


def test_images_of_another_size_stop_before_the_first_step(start, spoil):
    def double(coco):
        for image in coco["images"]:
            image.update(width=2 * image["width"], height=2 * image["height"])

    with pytest.raises(ValueError, match=r"image of another size .*: 16 \(.*\[file-size"):
        start(**spoil(double, "train"))


@pytest.mark.parametrize("name", ["out", "absolute"])
def test_paths_are_looked_at_without_the_files(start, spoil, name):
    hook = dict(type="DatasetCheckHook", find_images=False)
    start(hook=hook, **spoil(set_image("file_name", "none.jpg"), "train"))
    change, split, kind = STOPS[name]
    with pytest.raises(ValueError, match=rf"\[{kind}\]"):
        start(hook=hook, **spoil(change, split))


# --------------------------------------------------------------------------------------------------
# The hook by itself


@pytest.fixture
def coco_dataset(shapes):
    """Makes data sets of the embedded annotations, or others."""

    def make(ann_file="annotations/val.json", cls=CocoDataset, **options):
        defaults = dict(pipeline=[dict(type="LoadImageFromFile")], test_mode=True)
        options = defaults | dict(serialize_data=False) | options
        return cls(
            data_root=str(shapes),
            ann_file=ann_file,
            data_prefix=dict(img="val/"),
            metainfo=dict(classes=("disc", "square", "triangle", "star", "cross", "ring")),
            **options,
        )

    return make


def before(hook, phase="test", dataset=None, **others):
    runner = SimpleNamespace(logger=logging.getLogger("check"), val_loop=None, **others)
    setattr(runner, f"{phase}_dataloader", SimpleNamespace(dataset=dataset))
    getattr(hook, f"before_{phase}")(runner)


def test_other_data_sets_are_left_alone(coco_dataset, caplog):
    class Own(CocoDataset):
        """Reads its file in its own way."""

        def parse_data_info(self, raw_data_info):
            return super().parse_data_info(raw_data_info)

    caplog.set_level(logging.INFO, "check")
    hook = HOOKS.build(dict(type="DatasetCheckHook"))
    for dataset in (SimpleNamespace(metainfo={}), [1, 2], coco_dataset(cls=Own)):
        for phase in ("train", "val", "test"):
            before(hook, phase, dataset)
    assert caplog.messages == []


def test_wrapped_data_sets_are_checked_once(coco_dataset, caplog):
    caplog.set_level(logging.INFO, "check")
    hook = DatasetCheckHook()
    parts = [coco_dataset(), coco_dataset()]
    before(hook, "val", RepeatDataset(parts[0], times=2))
    before(hook, "val", ConcatDataset(parts))
    before(hook, "val", ConcatDataset(parts))
    assert len(caplog.messages) == 1
    for part in parts:
        (load,) = part.pipeline.transforms
        assert isinstance(load, loading.NamedImageLoading)
        assert not isinstance(load.loading, loading.NamedImageLoading)
        assert repr(load).startswith("LoadImageFromFile")
        assert part[0]["img"].shape


def test_files_of_images_to_detect_in_need_no_annotations(coco_dataset, shapes, tmp_path):
    path = tmp_path / "image_info.json"
    change_annotations(shapes / "annotations/val.json", path, lambda c: c.pop("annotations"))
    dataset = coco_dataset(str(path))
    before(DatasetCheckHook(), "test", dataset)
    with pytest.raises(ValueError, match="it has no list 'annotations'"):
        before(DatasetCheckHook(), "val", dataset)


def test_data_on_other_machines_is_not_looked_for(coco_dataset):
    dataset = coco_dataset()
    dataset.data_prefix = dict(img="s3://bucket/val/")
    before(DatasetCheckHook(), "test", dataset)


def test_no_file_gets_past_the_check_by_breaking_it(coco_dataset, monkeypatch):
    def fail(*_, **__):
        raise IndexError("a mistake")

    monkeypatch.setattr(dataset_check, "check_set", fail)
    sentence = r"The data check of .*val.json failed itself: IndexError\('a mistake'\). Please "
    with pytest.raises(ValueError, match=sentence):
        before(DatasetCheckHook(), "test", coco_dataset())


def test_all_processes_stop_though_one_checks(coco_dataset, monkeypatch):
    monkeypatch.setattr(dataset_check, "is_main_process", lambda: False)
    monkeypatch.setattr(dataset_check, "check_set", lambda *_, **__: pytest.fail("checked"))

    def receive(objects):
        assert objects == [None]
        objects[0] = "What the first process found."

    monkeypatch.setattr(dataset_check, "broadcast_object_list", receive)
    with pytest.raises(ValueError, match="What the first process found"):
        before(DatasetCheckHook(), "test", coco_dataset())


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="areas: no such kind of problem; there are no-images, "):
        DatasetCheckHook(allow=["area", "areas"])
    assert DatasetCheckHook(allow="area").allow == ("area",)


def test_errors_of_loading_that_the_check_knows_nothing_of_stay(tmp_path, shapes, coco_dataset):
    DatasetCheckHook()
    with pytest.raises(FileNotFoundError):
        CocoDataset(ann_file=str(tmp_path / "none.json"), data_prefix=dict(img=""))
    with pytest.raises(ValueError, match="need at least one array"):
        coco_dataset(filter_cfg=dict(min_size=10_000), test_mode=False, serialize_data=True)
