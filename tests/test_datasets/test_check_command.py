"""`python -m fastdetr_mmdet check`: exit status, output and files."""

import gc
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.runs import change_annotations

from fastdetr_mmdet.__main__ import main as entry
from fastdetr_mmdet.datasets.check import __main__ as command
from fastdetr_mmdet.datasets.check import check_annotations, read_coco
from fastdetr_mmdet.datasets.check.__main__ import main

DEMO = Path(__file__).parents[2] / "configs/demo/fast-detr_r18_shapes.py"


@pytest.fixture
def run(capsys):
    """Runs the command; returns exit status, stdout and stderr."""

    def call(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as error:  # argparse
            status = error.code
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def wrong(shapes, tmp_path):
    """Annotations of the embedded dataset with four problems."""

    def change(coco):
        coco["annotations"][0]["bbox"][2] = float("nan")
        coco["annotations"][1]["bbox"] = [500, 500, 9, 9]
        coco["annotations"][2]["bbox"][3] = 0
        coco["images"][5]["file_name"] = "../../../etc/passwd"

    change_annotations(shapes / "annotations/train.json", tmp_path / "wrong.json", change)
    return tmp_path / "wrong.json"


def test_the_garbage_collector_pauses(monkeypatch):
    """It would walk over millions of objects; the package's entry has the same main()."""
    seen = []
    monkeypatch.setattr(command, "_run", lambda args: seen.append(gc.isenabled()) or 0)
    assert entry(["check", "a.json"]) == 0
    assert seen == [False] and gc.isenabled()


@pytest.mark.smoke
def test_what_it_prints_and_writes(run, shapes, wrong, tmp_path):
    source = wrong.read_bytes()
    json_file, cleaned = tmp_path / "report.json", tmp_path / "cleaned.json"
    images = ("--images", shapes / "train")
    outputs = ("--json", json_file, "--write-cleaned", cleaned)
    status, out, err = run(wrong, *images, "--workers", 1, *outputs)
    assert (status, err) == (1, "")
    lines = [line.split()[:3] for line in out.splitlines()]
    errors = ("bbox-not-finite", "bbox-outside", "path-outside")
    for severity, kind in (("warning", "bbox-zero"), *(("error", kind) for kind in errors)):
        assert [severity, "1", kind] in lines and f"1 x {kind}" in out
    assert "3 errors of 3 kinds, " in out
    assert wrong.read_bytes() == source
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["cleaned.json", "report.json", "wrong.json"]

    (report,) = json.loads(json_file.read_text())["reports"]
    found = {f["kind"]: f for f in report["findings"]}
    assert found["bbox-outside"]["entries"][0]["id"] == 2
    assert found["path-outside"]["entries"][0]["file_name"] == "../../../etc/passwd"
    assert found["path-outside"]["stops_training"] and not found["bbox-zero"]["stops_training"]
    assert check_annotations(read_coco(cleaned)).errors() == []
    status, out, err = run(cleaned, *images)
    assert (status, err) == (0, "") and "15 images in " in out


def test_exit_status_of_warnings_and_allowed_kinds(run, shapes, wrong):
    images = ("--images", shapes / "train")
    kinds = ("bbox-not-finite", "bbox-outside", "path-outside")
    status, out, _ = run(wrong, *images, "--allow", *kinds)
    assert status == 3 and "no errors, " in out and "  allowed       1  path-outside" in out
    assert run(wrong, *images, "--allow", *kinds, "bbox-zero")[0] == 0
    status, _, err = run(wrong, "--allow", "bbox-outsied")
    assert status == 2 and "bbox-outsied" in err and "no-images" in err


@pytest.mark.parametrize("images", [(), ("--images", "{shapes}/train", "--no-images")])
def test_annotations_alone(run, shapes, wrong, images):
    status, out, _ = run(wrong, *(word.format(shapes=shapes) for word in images))
    assert status == 1
    assert "images not checked" in out and ("--images DIR" in out) == (not images)
    assert "../../../etc/passwd" in out  # the escaping path


def test_outputs_never_replace_sources_nor_other_files(run, wrong, shapes, tmp_path):
    image, config = tmp_path / "a.jpg", tmp_path / "config.py"
    image.write_bytes((shapes / "train/000001.jpg").read_bytes())
    config.write_text(f"_base_ = '{DEMO}'")
    (tmp_path / "symbolic.json").symlink_to(wrong)
    os.link(wrong, tmp_path / "hard.json")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for option in ("--json", "--write-cleaned"):
        for out in ("wrong.json", "./wrong.json", "symbolic.json", "hard.json", "a.jpg", ""):
            status, _, err = run(wrong, option, tmp_path / out)
            assert status == 2 and str(tmp_path / out) in err
        assert run(wrong, option, tmp_path / "none/x.json")[0] == 2
    options = ("--cfg-options", f"data_root={shapes}/")
    status, _, err = run("--config", config, "--json", config, *options)
    assert status == 2 and "config.py" in err
    status, _, err = run(wrong, "--json", tmp_path / "x", "--write-cleaned", tmp_path / "x")
    assert status == 2 and "same file" in err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_write_that_fails_leaves_nothing(run, wrong, tmp_path, monkeypatch):
    error = OSError(28, "No space left on device")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(error))
    status, _, err = run(wrong, "--write-cleaned", tmp_path / "cleaned.json")
    assert status == 2 and "No space left on device" in err
    assert list(tmp_path.iterdir()) == [wrong]


# --------------------------------------------------------------------------------------------------
# Configs


def test_config(run, shapes):
    options = ("--cfg-options", f"data_root={shapes}/")
    status, out, err = run("--config", DEMO, *options)
    assert (status, err) == (0, "")
    assert f"{shapes}/annotations/train.json: 16 images" in out and "16 images in " in out
    assert f"{shapes}/annotations/val.json: 8 images" in out and "8 images in " in out

    options = ("--split", "val", *options, "classes=square,disc,sqare")
    status, out, _ = run("--config", DEMO, *options)
    assert status == 1
    lines = [line.split()[:3] for line in out.splitlines()]
    assert ["error", "1", "class-without-category"] in lines
    assert ["error", "1", "class-order"] in lines
    assert ["warning", "4", "category-not-in-classes"] in lines
    assert "disc, square" in out and "'sqare'; the file has 'square'" in out


def test_config_with_wrappers_other_data_sets_and_own_loaders(run, shapes, tmp_path):
    config = tmp_path / "config.py"
    coco = (
        f"dict(type='CocoDataset', data_root='{shapes}', ann_file='annotations/{{0}}.json', "
        "data_prefix=dict(img='{0}/'), metainfo=dict(classes=('disc', 'square')), "
        "pipeline=[dict(type='LoadImageFromFile', imdecode_backend='pillow')])"
    )
    train, val = coco.format("train"), coco.format("val")
    config.write_text(
        f"train_dataloader = dict(dataset=dict(type='RepeatDataset', times=2, dataset=dict("
        f"type='ConcatDataset', datasets=[{train}, {val}, {train}])))\n"
        "val_dataloader = dict(dataset=dict(type='VOCDataset', ann_file='x.txt'))\n"
        "test_dataloader = None\n"
    )
    status, out, _ = run("--config", config)
    assert status == 0
    assert out.count("annotations/train.json: 16 images") == 1
    assert out.count("annotations/val.json: 8 images") == 1
    status, _, err = run("--config", config, "--split", "val", "test")
    assert status == 2 and "val or test" in err
    status, _, err = run("--config", config, "--write-cleaned", tmp_path / "cleaned.json")
    assert status == 2 and "--split" in err


def test_file_may_lie_anywhere_below_data_root(run, shapes, tmp_path):
    def move(coco):
        for image in coco["images"]:
            image["file_name"] = f"../train/{image['file_name']}"

    change_annotations(shapes / "annotations/train.json", tmp_path / "moved.json", move)
    options = (f"data_root={shapes}/", f"val_ann={tmp_path}/moved.json")
    assert run("--config", DEMO, "--split", "val", "--cfg-options", *options)[0] == 0
    assert run(tmp_path / "moved.json", "--images", shapes / "val", "--root", shapes)[0] == 0
    assert run(tmp_path / "moved.json", "--images", shapes / "val")[0] == 1


PROGRAMS = """if True:
    import json, runpy, sys, warnings
    warnings.simplefilter("error", RuntimeWarning)  # a module that was imported before it is run
    for name, *arguments in json.loads(sys.argv[1]):
        sys.argv = [name, *arguments]
        try:
            runpy.run_module(f"fastdetr_mmdet.{name}", run_name="__main__", alter_sys=True)
        except SystemExit as stopped:
            print(name, "exits with", stopped.code)
"""


@pytest.mark.slow
def test_as_programs(shapes, wrong, tmp_path):
    """Run the commands on data and parts in one process, to avoid imports.

    Also on a terminal without the characters of a file name.
    """
    change_annotations(
        wrong, wrong, lambda coco: coco["images"][6].update(file_name="犬\x1b[2J.jpg")
    )
    commands = [
        ["datasets.check", str(wrong), "--images", f"{shapes}/train"],
        ["checkpoints.convert", str(wrong), str(tmp_path / "out"), "--method", "mmdet"],
        ["datasets.shapes", str(tmp_path / "shapes"), "--train", "2", "--val", "0", "--seed", "3"],
        ["parts", "GaussianPrior"],
        ["export", "no.py", "no.pth", str(tmp_path / "out.onnx")],
    ]
    result = subprocess.run(
        [sys.executable, "-c", PROGRAMS, json.dumps(commands)],
        env=os.environ | {"PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    ended = dict(re.findall(r"^(\S+) exits with (\d)$", result.stdout, re.MULTILINE))
    expected = "datasets.check 1 checkpoints.convert 1 datasets.shapes 0 parts 0 export 2".split()
    assert ended == dict(zip(expected[::2], expected[1::2], strict=True)), result.stderr
    assert r"image 7 (\u72ac\x1b[2J.jpg, no such file)" in result.stdout
    assert "train: 2 images" in result.stdout and "val: 0 images (0 empty), 0" in result.stdout
