"""`python -m fastdetr_mmdet.datasets.check`: exit status, what it prints and what it writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.runs import change_annotations

from fastdetr_mmdet.datasets.check import check_annotations, read_coco
from fastdetr_mmdet.datasets.check.__main__ import main

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "configs/demo/fast-detr_r18_shapes.py"


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
def spoilt(shapes, tmp_path):
    """The embedded data set's annotations, spoilt in three ways."""

    def spoil(coco):
        coco["annotations"][0]["bbox"][2] = float("nan")
        coco["annotations"][1]["bbox"] = [500, 500, 9, 9]
        coco["annotations"][2]["bbox"][3] = 0
        coco["images"][5]["file_name"] = "../../../etc/passwd"

    change_annotations(shapes / "annotations/train.json", tmp_path / "spoilt.json", spoil)
    return tmp_path / "spoilt.json"


@pytest.mark.smoke
def test_sound_data(run, shapes):
    status, out, err = run(shapes / "annotations/train.json", "--images", shapes / "train")
    assert (status, err) == (0, "")
    assert out.startswith(f"{shapes}/annotations/train.json: 16 images, ")
    assert "error" not in out.replace("no errors", "")
    assert "16 images in " in out


@pytest.mark.smoke
def test_spoilt_data(run, shapes, spoilt, tmp_path):
    source = spoilt.read_bytes()
    json_file, cleaned = tmp_path / "report.json", tmp_path / "cleaned.json"
    status, out, err = run(
        *(spoilt, "--images", shapes / "train", "--workers", 1),
        *("--json", json_file, "--write-cleaned", cleaned),
    )
    assert (status, err) == (1, "")
    lines = [line.split()[:3] for line in out.splitlines()]
    for expected in (
        ["error", "1", "bbox-not-finite"],
        ["error", "1", "bbox-outside"],
        ["warning", "1", "bbox-zero"],
        ["error", "1", "path-outside"],
    ):
        assert expected in lines
    assert "3 errors of 3 kinds, " in out
    assert "1 x path-outside, 1 x bbox-not-finite, 1 x bbox-outside, 1 x bbox-zero" in out
    assert spoilt.read_bytes() == source
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cleaned.json",
        "report.json",
        "spoilt.json",
    ]

    (report,) = json.loads(json_file.read_text())["reports"]
    found = {f["kind"]: f for f in report["findings"]}
    assert found["bbox-outside"]["entries"][0]["id"] == 2
    assert found["path-outside"]["entries"][0]["file_name"] == "../../../etc/passwd"
    assert found["path-outside"]["stops_training"] and not found["bbox-zero"]["stops_training"]
    assert check_annotations(read_coco(cleaned)).errors() == []
    assert run(cleaned, "--images", shapes / "train")[0] == 0


def test_allowed_kinds_are_no_errors(run, shapes, spoilt):
    kinds = ("bbox-not-finite", "bbox-outside", "path-outside")
    status, out, _ = run(spoilt, "--images", shapes / "train", "--allow", *kinds)
    assert status == 3 and "no errors, " in out and "  allowed       1  path-outside" in out
    status, out, err = run(spoilt, "--allow", "bbox-outsied")
    assert status == 2 and "bbox-outsied: no such kind of problem; there are no-images, " in err


@pytest.mark.parametrize("images", [(), ("--images", "{shapes}/train", "--no-images")])
def test_annotations_alone(run, shapes, spoilt, images):
    status, out, _ = run(spoilt, *(word.format(shapes=shapes) for word in images))
    assert status == 1
    assert "images not looked at" in out and ("give --images DIR" in out) == (not images)
    assert "../../../etc/passwd, as it is written" in out  # whatever folder that is relative to


def test_a_folder_that_is_not_there(run, shapes, tmp_path):
    status, out, _ = run(shapes / "annotations/val.json", "--images", tmp_path / "none")
    assert status == 1 and "file-missing" in out
    assert "(000001.jpg, its folder: No such file or directory)" in out


@pytest.mark.parametrize(
    "content, sentence",
    [
        (None, "file.json cannot be read: No such file or directory."),
        ("", "file.json is no JSON: Expecting value: line 1 column 1 (char 0)."),
        ("[]", "file.json is no COCO annotation file: it is a list, not an object with "),
        ('{"shapes": []}', "it has no list 'images', 'annotations', 'categories' (it has 'shapes'"),
        (
            '{"images": [], "annotations": [], "categories": []}',
            "file.json: nothing to write, no images are left.",
        ),
    ],
)
def test_nothing_to_check(run, tmp_path, content, sentence):
    path = tmp_path / "file.json"
    if content is not None:
        path.write_text(content)
    status, _, err = run(path, "--write-cleaned", tmp_path / "cleaned.json")
    assert status == 2
    assert sentence in err and err.count("\n") == 1
    assert not (tmp_path / "cleaned.json").exists()


def test_outputs_never_replace_a_source(run, spoilt, tmp_path):
    source = spoilt.read_bytes()
    (tmp_path / "symbolic.json").symlink_to(spoilt)
    os.link(spoilt, tmp_path / "hard.json")
    for out in (spoilt, tmp_path / "." / "spoilt.json", "symbolic.json", "hard.json"):
        for option in ("--write-cleaned", "--json"):
            status, _, err = run(spoilt, option, tmp_path / out)
            assert status == 2 and "is the source itself; give another file to write." in err
    assert spoilt.read_bytes() == source


def test_outputs_never_replace_other_files(run, spoilt, shapes, tiny_config_file, tmp_path):
    image, config = tmp_path / "a.jpg", tmp_path / "config.py"
    image.write_bytes((shapes / "train/000001.jpg").read_bytes())
    config.write_bytes(tiny_config_file.read_bytes())
    before = image.read_bytes(), config.read_bytes()
    for option in ("--json", "--write-cleaned"):
        status, _, err = run(spoilt, option, image)
        assert status == 2 and "a.jpg exists and is no .json file; give another file" in err
    options = ("--cfg-options", f"data_root={shapes}/")
    status, _, err = run("--config", config, "--json", config, *options)
    assert status == 2 and "config.py is the source itself" in err
    assert (image.read_bytes(), config.read_bytes()) == before


def test_names_of_unfinished_outputs_are_nobody_s(run, spoilt, tmp_path):
    """Neither a source of such a name is lost, nor a file that a link of it leads to."""
    source, precious = tmp_path / "out.json.tmp", tmp_path / "precious"
    source.write_bytes(spoilt.read_bytes())
    precious.write_text("precious")
    (tmp_path / "other.json.tmp").symlink_to(precious)
    assert run(source, "--write-cleaned", tmp_path / "out.json")[0] == 1
    assert run(source, "--write-cleaned", tmp_path / "other.json")[0] == 1
    assert source.read_bytes() == spoilt.read_bytes()
    assert precious.read_text() == "precious"
    assert not (tmp_path / "other.json").is_symlink()


def test_warnings_alone(run, shapes, tmp_path):
    """They have an exit status of their own."""
    source = tmp_path / "train.json"
    change_annotations(
        shapes / "annotations/train.json",
        source,
        lambda coco: coco["annotations"][2]["bbox"].__setitem__(3, 0),
    )
    assert run(source, "--no-images")[0] == 3
    assert run(source, "--no-images", "--allow", "bbox-zero")[0] == 0


def test_outputs_that_cannot_be_written(run, spoilt, tmp_path):
    for arguments, words in (
        (("--json", tmp_path / "none/x.json"), "none is no folder"),
        (("--write-cleaned", tmp_path), "is a folder; give a file to write"),
        (("--json", tmp_path / "x", "--write-cleaned", tmp_path / "x"), "name the same file"),
    ):
        status, _, err = run(spoilt, *arguments)
        assert status == 2 and words in err


def test_a_write_that_fails_leaves_nothing(run, spoilt, tmp_path, monkeypatch):
    target = tmp_path / "cleaned.json"
    target.write_text("older")
    monkeypatch.setattr(
        Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    status, _, err = run(spoilt, "--write-cleaned", target)
    assert status == 2 and "No space left on device" in err
    assert target.read_text() == "older"
    assert not list(tmp_path.glob("*.tmp"))


def test_arguments_that_do_not_fit(run, spoilt):
    assert "one of the two" in run()[2]
    assert "one of the two" in run(spoilt, "--config", DEMO)[2]
    assert "go with an annotation file" in run("--config", DEMO, "--images", "x")[2]
    assert "none.py cannot be read: " in run("--config", "none.py")[2]


# --------------------------------------------------------------------------------------------------
# Configs


def test_config(run, shapes):
    status, out, err = run("--config", DEMO, "--cfg-options", f"data_root={shapes}/")
    assert (status, err) == (0, "")
    assert f"{shapes}/annotations/train.json: 16 images" in out
    assert f"{shapes}/annotations/val.json: 8 images" in out
    assert "16 images in " in out and "8 images in " in out


def test_config_with_other_classes(run, shapes):
    options = (f"data_root={shapes}/", "classes=square,disc,sqare")
    status, out, _ = run("--config", DEMO, "--split", "val", "--cfg-options", *options)
    assert status == 1
    lines = [line.split()[:3] for line in out.splitlines()]
    assert ["error", "1", "class-without-category"] in lines
    assert ["error", "1", "class-order"] in lines
    assert ["warning", "4", "category-not-in-classes"] in lines
    assert "the file's order, to set there, is disc, square" in out


def test_config_with_wrappers_and_other_data_sets(run, shapes, tmp_path):
    config = tmp_path / "config.py"
    coco = (
        f"dict(type='CocoDataset', data_root='{shapes}', ann_file='annotations/{{0}}.json', "
        "data_prefix=dict(img='{0}/'), metainfo=dict(classes=('disc', 'square')))"
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
    assert status == 2 and "has no data set of type CocoDataset for val or test." in err
    status, _, err = run("--config", config, "--write-cleaned", tmp_path / "cleaned.json")
    assert status == 2 and "the config names several annotation files; choose one by" in err


def test_file_may_lie_anywhere_below_data_root(run, shapes, tmp_path):
    def move(coco):
        for image in coco["images"]:
            image["file_name"] = f"../train/{image['file_name']}"

    change_annotations(shapes / "annotations/train.json", tmp_path / "moved.json", move)
    options = (f"data_root={shapes}/", f"val_ann={tmp_path}/moved.json")
    config = ("--config", DEMO, "--split", "val", "--cfg-options", *options)
    assert run(*config)[0] == 0
    assert run(tmp_path / "moved.json", "--images", shapes / "val", "--root", shapes)[0] == 0
    assert run(tmp_path / "moved.json", "--images", shapes / "val")[0] == 1


def test_as_a_program(shapes, spoilt):
    """Also where the terminal has no letters for a file name."""
    change_annotations(
        spoilt, spoilt, lambda coco: coco["images"][6].update(file_name="犬\x1b[2J.jpg")
    )
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m"]
    command += ["fastdetr_mmdet.datasets.check", spoilt, "--images", shapes / "train"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    assert r"image 7 (\u72ac\x1b[2J.jpg, no such file)" in result.stdout
