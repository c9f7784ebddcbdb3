"""The front door: ``python -m fastdetr_mmdet`` init, train, predict."""

import json
import subprocess
import sys
import time

import pytest
from mmengine.config import Config
from support.exports import write_voc, write_yolo
from support.runs import ROOT

from fastdetr_mmdet.__main__ import COMMANDS, main
from fastdetr_mmdet.engine.start.models import MODELS, find
from fastdetr_mmdet.utils import derived_keys  # noqa: F401 (registers)

ROLES = {"train": "train", "val": "val"}


def init(*arguments) -> int:
    return main(["init", *map(str, arguments)])


def text_of(run) -> str:
    return (run / "config.py").read_text()


# --------------------------------------------------------------------------------------------------
# The list of commands


def test_all_commands_are_listed(capsys):
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n  {name} " in listed for name in COMMANDS)


@pytest.mark.parametrize("words", [[], ["--help"], ["init", "--help"], ["predict", "--help"]])
def test_help_takes_no_second_of_imports(words):
    command = [sys.executable, "-X", "importtime", "-m", "fastdetr_mmdet", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported and imported.isdisjoint({"torch", "numpy", "mmengine", "PIL"})


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["traim"], "train"),
        (["init", "data", "--epoch", "3"], "--epochs"),
        (["init", "data", "--imagesize=3"], "--image-size"),
        (["train", "run", "--cfg-option", "a=1"], "--cfg-options"),
        (["predict", "run", "x.jpg", "--scores"], "--score"),
    ],
)
def test_what_is_unknown_is_refused_with_the_nearest(words, near, capsys):
    try:
        status = main(words)
    except SystemExit as end:
        status = end.code
    assert status == 2 and f"did you mean {near}?" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------
# init


@pytest.mark.parametrize("form", ["COCO", "YOLO", "Pascal VOC"])
def test_init(form, shapes, tmp_path, capsys):
    data = shapes if form == "COCO" else tmp_path / "data"
    if form == "YOLO":
        names = write_yolo(shapes, data, ROLES)
        (data / "classes.txt").write_text("\n".join(names))
    elif form == "Pascal VOC":
        write_voc(shapes, data, ROLES)
    run = tmp_path / "run"
    before = sorted(data.rglob("*"))
    assert init(data, "--out", run, "--model", "small", "--epochs", 3) == 0
    said = capsys.readouterr().out
    assert f"train {run}" in said and f"predict {run}" in said and "16 images" in said
    assert sorted(data.rglob("*")) == before
    text = text_of(run)
    assert len(text.splitlines()) <= 30 and form in text
    assert (run / "annotations").exists() == (form != "COCO")
    config = Config.fromfile(run / "config.py")
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        assert set(loader.dataset.metainfo.classes) == {*config.classes} and config.classes
        assert loader.dataset.pipeline[1].get("scale", (320, 320)) == (320, 320)
    assert config.model.bbox_head.num_classes == 6
    assert config.train_cfg.max_epochs == 3
    ann = json.loads((data / config.val_ann).read_text())  # joined, unless absolute
    for image in ann["images"]:
        assert (data / config.val_images / image["file_name"]).is_file()
    assert init(data, "--out", run) == 2  # never over another run


@pytest.mark.parametrize("name", MODELS)
def test_every_model_takes_own_data(name, shapes, tmp_path):
    run = tmp_path / "run"
    assert init(shapes, "--out", run, "--model", name, "--image-size", 320, "--batch", 4) == 0
    assert len(text_of(run).splitlines()) <= 30
    config = Config.fromfile(run / "config.py")
    base = Config.fromfile(find(name))
    assert config.model.bbox_head.num_classes == 6 and config.train_dataloader.batch_size == 4
    share = (4 / base.auto_scale_lr.base_batch_size) ** 0.5
    lr = config.optim_wrapper.optimizer.lr
    assert lr == pytest.approx(base.optim_wrapper.optimizer.lr * share, rel=0.03)
    used = Config({key: config[key] for key in ("train_dataloader", "test_dataloader")}).pretty_text
    assert str(shapes) in used and "coco" not in used and "1333" not in used
    milestones = config.param_scheduler[0].get("milestones")
    if milestones:
        before = base.param_scheduler[0].milestones[0] / base.max_epochs
        assert milestones[0] / config.max_epochs == pytest.approx(before, abs=0.02)


def test_any_config_of_ours_takes_own_data(shapes, tmp_path):
    """Without init: by a config's name or path, and by a _base_ of the data set alone."""
    name = "sam-detr_r50_4xb4-50e_coco"
    assert init(shapes, "--out", tmp_path / "run", "--model", name) == 0
    assert find(name) in (tmp_path / "run").parents or find(name).stem == name
    own = tmp_path / "own.py"
    base = ROOT / "configs/_base_"
    parts = ("models/sam-detr_r50.py", "datasets/custom_detection.py", "schedules/schedule_50e.py",
             "default_runtime.py")  # fmt: skip
    own.write_text(f"_base_ = {[str(base / part) for part in parts]}\nclasses = 'cat'\n")
    config = Config.fromfile(own)
    assert config.train_dataloader.dataset.metainfo.classes == ("cat",)
    assert config.model.bbox_head.num_classes == 1
    assert config.val_evaluator.ann_file == "data/my_dataset/val.json"


def test_a_validation_set_of_its_own(shapes, tmp_path):
    train = shapes / "annotations/train.json"
    val = shapes / "annotations/val.json"
    run = tmp_path / "run"
    assert init(train, "--out", run, "--val", val) == 0
    config = Config.fromfile(run / "config.py")
    assert config.val_evaluator.ann_file == str(val)
    assert not (run / "annotations").exists()


def test_a_validation_set_is_split_off(shapes, tmp_path, capsys):
    run = tmp_path / "run"
    assert init(shapes / "annotations/train.json", "--out", run, "--val-share", 0.25) == 0
    assert "4 of 16 images were split off" in capsys.readouterr().out
    files = [json.loads((run / f"annotations/{role}.json").read_text()) for role in ROLES]
    assert [len(coco["images"]) for coco in files] == [12, 4]


def test_minutes(shapes, tmp_path, capsys):
    run = tmp_path / "run"
    start = time.perf_counter()
    assert init(shapes, "--out", run, "--minutes", 2, "--image-size", 64) == 0
    assert time.perf_counter() - start < 100
    said = capsys.readouterr().out
    step = float(said.split(" s a step")[0].split()[-1])
    epochs = Config.fromfile(run / "config.py").max_epochs
    assert epochs == pytest.approx(100 / (2 * step), rel=0.5)
