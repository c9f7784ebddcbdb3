"""The front door: ``python -m fastdetr_mmdet`` init, train, predict."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from support.exports import ROLES, write_voc, write_yolo
from support.runs import ROOT

from fastdetr_mmdet.__main__ import COMMANDS, main
from fastdetr_mmdet.engine import mmdet_tools
from fastdetr_mmdet.engine.start import models
from fastdetr_mmdet.engine.start.console import shorten
from fastdetr_mmdet.engine.start.models import MODELS, find
from fastdetr_mmdet.engine.start.run_folder import RunFolder
from fastdetr_mmdet.utils import derived_keys  # noqa: F401 (registers)
from fastdetr_mmdet.utils.cli import UserError


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


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_list_takes_no_second_of_imports(words):  # help of commands: tests/test_utils/test_cli.py
    command = [sys.executable, "-X", "importtime", "-m", "fastdetr_mmdet", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "convergence" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported and imported.isdisjoint({"torch", "numpy", "mmengine", "PIL"})


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("traim", "did you mean train?"),
        *((f"{name} --hepl", "did you mean --help?") for name in COMMANDS),
        ("init data --epoch 3", "did you mean --epochs?"),
        ("init data --imagesize=3", "did you mean --image-size?"),
        ("train run --cfg-option a=1", "did you mean --cfg-options?"),
        ("predict run x.jpg --scores", "did you mean --score?"),
        ("train run --epochs 3", "--cfg-options max_epochs="),
        ("train run --lr=1 3", "--cfg-options optim_wrapper.optimizer.lr="),
        *((f"{command} nowhere x.jpg", "no folder nowhere") for command in ("train", "predict")),
        *((f"{command} none x.jpg", "none is not a run") for command in ("train", "predict")),
        ("init . --epochs x", "'x' must be a whole number"),
        ("init . --epochs +-5", "'+-5' must be a whole number"),
        ("init bad.json", "bad.json"),  # and not the YOLO labels beside it
        ("train broken.py", "broken.py cannot be read"),
        ("predict broken.py x.jpg", "broken.py cannot be read"),
        ("predict empty.py x.jpg", "train empty.py"),
        ("check nowhere.json", "There is no annotation file nowhere.json"),
        ("check .", "There is no annotation file ."),
        ("check bad.json --write-cleaned x.json", "bad.json is not a COCO"),
        ("check", "--config"),
        ("check bad.json --config empty.py", "--config"),
        ("check --config empty.py --images x", "--images"),
        ("check --config broken.py", "broken.py cannot be read"),
        ("convergence broken.py --epochs 1", "broken.py cannot be read"),
        ("convergence --results-only --out nowhere", "nowhere holds no runs"),
        ("convert nowhere.pth x.pth --method dino", "There is no checkpoint nowhere.pth"),
        ("evaluation empty.py bad.json --json nowhere/x.json", "nowhere/x.json"),
        ("parts gaussprior", "GaussianPrior"),
        ("parts -o nowhere/x.md", "nowhere/x.md"),
        ("visualize empty.py bad.json x.jpg --out bad.json", "--out bad.json"),
        ("visualize empty.py bad.json x.jpg --out y --layer 0", "at least 1"),
    ],
)
def test_wrong_usage_ends_with_status_2(words, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    files = {"broken.py": "x = [", "empty.py": "", "bad.json": "{}", "x.txt": "0 .5 .5 .2 .2"}
    for name, text in files.items():
        Path(name).write_text(text)
    Path("none").mkdir()
    cv2.imwrite("x.jpg", np.zeros((8, 8, 3), np.uint8))
    try:
        status = main(words.split())
    except SystemExit as end:
        status = end.code
    assert status == 2 and named in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------
# init


@pytest.mark.parametrize(
    ("split", "again"), [(False, "need not run again"), (True, "run init again")]
)
def test_init_does_not_send_on_to_train_what_the_check_refuses(
    split, again, shapes, tmp_path, capsys
):
    """It says how to go on; its own command leaves out what is wrong."""
    shutil.copytree(shapes, tmp_path / "data")
    next((tmp_path / "data/train").iterdir()).unlink()
    run, data = tmp_path / "run", tmp_path / "data"
    if split:
        data /= "annotations/train.json"
    assert init(data, "--out", run, "--model", "small") == 1
    said = capsys.readouterr().out
    assert "Next" not in said and f"train {run}\n" in said and f"{again}.\n- " in said
    (cleaning,) = re.findall("python -m fastdetr_mmdet (check .*)", said)
    (line,) = re.findall(r"set (train_ann = '.*') in", said)
    assert main(shlex.split(cleaning)) == 1
    with (run / "config.py").open("a") as file:
        file.write(f"{line}\n")
    assert main(["check", "--config", str(run / "config.py"), "--split", "train"]) in (0, 3)


@pytest.mark.parametrize("form", ["COCO", "YOLO", "Pascal VOC"])
def test_init(form, shapes, tmp_path, capsys):
    data = shapes if form == "COCO" else tmp_path / "data"
    if form == "YOLO":
        names = write_yolo(shapes, data)
        (data / "classes.txt").write_text("\n".join(names))
    elif form == "Pascal VOC":
        write_voc(shapes, data)
    run = tmp_path / "run"
    before = sorted(data.rglob("*"))
    assert init(data, "--out", run, "--model", "small", "--epochs", 3) == 0
    said = capsys.readouterr().out
    assert f"train {run}\n" in said and f"predict {run} " in said and "16 images" in said
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
    assert config.val_evaluator.classwise and config.test_evaluator.classwise
    assert config.default_hooks.checkpoint.save_best == "coco/bbox_mAP"  # not of the first class
    ann = json.loads((data / config.val_ann).read_text())  # joined, unless absolute
    for image in ann["images"]:
        assert (data / config.val_images / image["file_name"]).is_file()
    assert init(data, "--out", run) == 2  # never over another run


@pytest.mark.parametrize("role", ["train", "val"])
def test_init_refuses_a_set_without_boxes(role, shapes, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(shapes, data)
    file = data / f"annotations/{role}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | dict(annotations=[])))
    assert init(data, "--out", tmp_path / "run") == 1
    assert f"the {role} set has no box" in capsys.readouterr().err


# One of each schedule in `make test`
@pytest.mark.parametrize(
    "name",
    [n if n in ("small", "dino") else pytest.param(n, marks=pytest.mark.slow) for n in MODELS],
)
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


@pytest.mark.parametrize(
    ("weights_of", "base"),
    [
        ("dino/dino-4scale_r50_8xb2-12e_coco", "dino-4scale_r50_finetune"),
        ("sam_detr/sam-detr_r50_4xb4-50e_coco", "sam-detr_r50_4xb4-50e_coco"),
        (None, "fast-detr_r18_custom"),  # of this package: its notes name no config
    ],
)
def test_weights_of_a_detector(weights_of, base, shapes, tmp_path):
    """Converted weights tell the model; few epochs, and the rates of fine-tuning."""
    weights, run = tmp_path / "weights.pth", tmp_path / "run"
    meta = dict(configs=[f"configs/{weights_of}.py"]) if weights_of else {}
    torch.save(dict(state_dict={"bbox_head.a": torch.zeros(1)}, meta=meta), weights)
    more = () if weights_of else ("--model", "small")
    assert init(shapes, "--out", run, "--weights", weights, *more) == 0
    config = Config.fromfile(run / "config.py")
    assert f"{base}.py'" in text_of(run) and config.load_from == str(weights)
    assert config.optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult == 0.5
    assert config.model.backbone.init_cfg is None and config.max_epochs <= 50
    assert config.model.num_queries == {"dino-4scale_r50_finetune": 300}.get(
        base, Config.fromfile(find(base)).model.num_queries
    )


def test_list_measures_each_model(monkeypatch, capsys):
    monkeypatch.setattr(models, "MODELS", {"small": MODELS["small"]})
    assert init("--list") == 0
    header, row = capsys.readouterr().out.splitlines()
    assert "parameters" in header and "s/image, CPU" in header and "configs/custom/" in row
    name, size, unit, ap, seconds = row.split()[:5]
    assert (name, unit, ap) == ("small", "M", "-") and 3 < float(size) < 5 and float(seconds) > 0


def test_any_config_of_ours_takes_own_data(shapes, tmp_path):
    """Without init: by a config's name or path, and by a _base_ of the dataset alone."""
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
    val, run = shapes / "annotations/val.json", tmp_path / "run"
    assert init(shapes / "annotations/train.json", "--out", run, "--val", val) == 0
    assert Config.fromfile(run / "config.py").val_evaluator.ann_file == str(val)
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
    step = float(re.search(r"note: ([\d.]+) s ", said)[1])
    epochs = Config.fromfile(run / "config.py").max_epochs
    assert epochs == pytest.approx(100 / (2 * step), rel=0.5)


# --------------------------------------------------------------------------------------------------
# train and predict


@pytest.fixture(scope="module")
def trained(tiny_run, tmp_path_factory):
    """The folder of a run, as `train` leaves it: a config and a work directory."""
    run = tmp_path_factory.mktemp("trained") / "a run"
    shutil.copytree(tiny_run.work_dir, run / "work")
    text = (run / "work" / tiny_run.config.name).read_text()
    (run / "work" / tiny_run.config.name).rename(run / "work/config.py")
    (run / "work/config.py").write_text(text)
    (run / "config.py").write_text(text)
    return run


def test_predict_finds_what_mim_test_finds(trained, tiny_run, tmp_path, capsys):
    out = tmp_path / "out"
    # the score is what is drawn; the file has all boxes
    assert main(["predict", str(trained), str(tiny_run.data_root / "val"), "--score", "0.9",
                 "--out", str(out)]) == 0  # fmt: skip
    assert str(trained / "work/epoch_2.pth") in capsys.readouterr().out
    found = json.loads((out / "predictions.json").read_text())
    names = {image["id"]: Path(image["file_name"]).name for image in found["images"]}
    assert len(names) == 8 and all((out / name).is_file() for name in names.values())
    config = Config.fromfile(trained / "config.py")
    config.test_dataloader.batch_size = 1  # its images are padded to one another
    config.test_evaluator.outfile_prefix = str(tmp_path / "tested")
    config.work_dir, config.load_from = str(tmp_path), str(RunFolder.find(trained).checkpoint())
    config.experiment_name = config.visualizer.name = "tested_by_runner"
    Runner.from_cfg(config).test()
    tested = json.loads((tmp_path / "tested.bbox.json").read_text())
    coco = json.loads((tiny_run.data_root / "annotations/val.json").read_text())
    files = {image["id"]: image["file_name"] for image in coco["images"]}

    def columns(items, files) -> dict:
        found: dict = {}
        for item in items:
            key = files[item["image_id"]], item["category_id"]
            found.setdefault(key, []).append([*item["bbox"], item["score"]])
        return {key: np.sort(rows, axis=0) for key, rows in found.items()}  # each for itself

    ours, theirs = columns(found["annotations"], names), columns(tested, files)
    assert ours.keys() == theirs.keys()
    assert all(np.abs(ours[key] - theirs[key]).max() < 1e-2 for key in ours)


def test_the_best_checkpoint_is_taken(tmp_path):
    (tmp_path / "config.py").write_text("train_cfg = dict(max_epochs=3)")
    run = RunFolder.find(tmp_path)
    for name in ("epoch_2.pth", "best_coco_bbox_mAP_epoch_1.pth"):
        (tmp_path / name).touch()
        (tmp_path / "last_checkpoint").write_text("/elsewhere/epoch_2.pth")
        run = RunFolder.find(tmp_path)
        assert run.checkpoint() == tmp_path / name


def test_predict_goes_on_after_what_it_cannot_read(trained, tiny_run, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    (images / "broken.jpg").write_bytes(b"no image")
    shutil.copy(tiny_run.data_root / "val/000001.jpg", images / "whole.jpg")
    video = cv2.VideoWriter(str(images / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 48))
    for _ in range(3):
        video.write(cv2.imread(str(images / "whole.jpg"))[:48, :64].copy())
    video.release()
    out = tmp_path / "out"
    assert main(["predict", str(trained), str(images), "--out", str(out)]) == 1
    assert "broken.jpg" in capsys.readouterr().err
    found = json.loads((out / "predictions.json").read_text())
    names = [Path(image["file_name"]).name for image in found["images"]]
    assert names == ["clip.avi#1", "clip.avi#2", "clip.avi#3", "whole.jpg"]
    assert (out / "whole.jpg").is_file() and (out / "clip.mp4").stat().st_size > 0
    images.joinpath("broken.jpg").unlink()
    again = [str(images / "whole.jpg"), str(tiny_run.data_root / "val"), str(images)]
    assert main(["predict", str(trained), *again, "--out", str(out), "--score", "1"]) == 0
    assert (out / "whole.jpg").is_file() and (out / "whole-2.jpg").is_file()
    assert "highest score" in capsys.readouterr().out
    assert main(["predict", str(trained), str(images / "whole.jpg"), "--out", str(images)]) == 2


def test_predict_with_a_checkpoint(trained, tiny_run, tmp_path):
    """With its config, or that beside it, or that in it; names hold what they like."""
    image = shutil.copy(tiny_run.data_root / "val/000001.jpg", tmp_path / "50% %d %s.jpg")
    bare = shutil.copy(tiny_run.checkpoint, tmp_path / "bare.pth")
    for given in ([trained / "config.py", tiny_run.checkpoint], [tiny_run.checkpoint], [bare]):
        out = tmp_path / "out"
        assert main(["predict", *map(str, [*given, image, "--out", out])]) == 0
        assert (out / "50% %d %s.jpg").is_file()
        shutil.rmtree(out)


def test_a_finished_run_has_nothing_left(trained, capsys):
    assert main(["train", str(trained)]) == 1
    said = capsys.readouterr().err
    assert "2 epochs, and 2 " in said and f"predict '{trained}' IMAGES" in said


def test_train_continues(trained, tmp_path, monkeypatch, capsys):
    """What mmdet's tool is called with; test_ecosystem.py trains by it."""
    called = []
    monkeypatch.setattr(mmdet_tools, "run", lambda name: called.append([name, *sys.argv[1:]]))
    monkeypatch.setattr(sys, "argv", [])
    longer = ["--cfg-options", "train_cfg.max_epochs=3"]
    assert main(["train", str(trained), *longer]) == 0
    assert "after epoch 2 of 3" in capsys.readouterr().out
    # Not longer than before.
    assert main(["train", str(trained), "--cfg-options", "work_dir=x"]) == 1
    elsewhere = ["--work-dir", str(tmp_path)]
    assert main(["train", str(trained), "--amp", *elsewhere]) == 0
    config = str(trained / "config.py")
    assert called == [["train.py", config, "--resume", *longer],
                      ["train.py", config, "--amp", *elsewhere]]  # fmt: skip
    assert main(["train", str(trained), "--cfg-options", "epochs=3"]) == 2
    assert "max_epochs=" in capsys.readouterr().err


def test_the_terminal_shows_a_page(capfd, tmp_path, monkeypatch):
    """The log file has what mmengine said; the terminal has the losses within a page."""
    (tmp_path / "run.py").write_text("_base_ = 'b.py'\n\n# why\nlr = 7  # own\n")
    shorten()
    monkeypatch.setattr(sys, "argv", ["train.py", str(tmp_path / "run.py"), "--amp"])
    logger = MMLogger("short", log_file=str(tmp_path / "log"))
    logger.info("paramwise_options -- backbone.conv.weight:lr=0.0001")
    long = "\n" + "-" * 60 + "\nSystem environment:\n    Python: 3.1 (x)\n    seed: 4\n" + "-" * 60
    for text in (long, "Config:\nmodel = 1", "Hooks will be executed in the following order:\nx"):
        logger.info(text)
    logger.info("Epoch(train) [1]")
    shown, kept = "".join(capfd.readouterr()), (tmp_path / "log").read_text()
    assert "run.py --amp" in shown and "\nlr = 7" in shown and "why" not in shown
    assert "Python 3.1, seed 4" in shown and "Epoch(train) [1]" in shown
    assert "model = 1" in kept and "following order" in kept and "System" in kept
    assert not any(word in shown for word in ("model = 1", "order", "System", "paramwise"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (URLError("no network"), "--weights FILE"),
        (UserError("what a hook refuses"), "error: what a hook refuses\n"),
    ],
)
def test_errors_for_users_have_no_traceback(error, said, monkeypatch, capsys):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(mmdet_tools.runpy, "run_path", fail)
    with pytest.raises(SystemExit) as end:
        mmdet_tools.run("train.py")
    shown = capsys.readouterr().err
    assert end.value.code == 1 and said in shown and "Traceback" not in shown
