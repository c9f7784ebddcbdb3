"""``python -m fastdetr_mmdet visualize``: files and errors."""

import shutil
from pathlib import Path

import cv2
import pytest
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import save_checkpoint
from support.models import randomise
from support.runs import CLASSES, val_images

from fastdetr_mmdet.visualize import _parser, main


@pytest.fixture(scope="module")
def checkpoint(tiny_config_file, tmp_path_factory):
    """A checkpoint with random weights."""
    model = randomise(MODELS.build(Config.fromfile(tiny_config_file).model))
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    meta = dict(dataset_meta=dict(classes=CLASSES))
    save_checkpoint(dict(state_dict=model.state_dict(), meta=meta), str(path))
    return path


@pytest.fixture
def run(tiny_config_file, checkpoint, tmp_path, capsys):
    """Runs the command; returns status, names of the pictures, and stderr."""

    def call(*arguments, config=tiny_config_file, weights=checkpoint):
        out = tmp_path / "out"
        status = main([str(x) for x in (config, weights, *arguments, "--out", out)])
        captured = capsys.readouterr()
        names = [line.split("/")[-1] for line in captured.out.splitlines() if "/out/" in line]
        assert all(cv2.imread(str(out / name)).std() > 20 for name in names)
        return status, names, captured.err

    return call


def test_pages_and_sheet_of_a_file(run, shapes):
    image = val_images(shapes)[0]
    status, (sheet, page), _ = run(image, "--top", 1)
    stem = Path(image).stem
    assert status == 0 and sheet == f"{stem}.png"
    assert page in [f"{stem}_1_{name}.png" for name in CLASSES]


def test_folder_and_names_that_are_alike(run, shapes, tmp_path):
    first, second = val_images(shapes, (0, 1))
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(second, folder / Path(first).name)
    (folder / "notes.txt").write_text("no image")
    status, names, _ = run(first, folder, "--query", 3, "--layer", 1)
    stem = Path(first).stem
    assert status == 0 and len(names) == 4
    assert [names[0], names[2]] == [f"{stem}.png", f"{stem}(2).png"]


def test_unreadable_images_do_not_stop_the_others(run, shapes, tmp_path):
    broken, empty = tmp_path / "broken.jpg", tmp_path / "empty.png"
    broken.write_text("no image")
    empty.touch()
    image = val_images(shapes)[0]
    status, names, error = run(broken, image, empty, "--query", 3)
    assert status == 1 and len(names) == 2
    assert names[0] == f"{Path(image).stem}.png"
    first, second = error.splitlines()[-2:]
    assert first.startswith(f"error: {broken} ") and second.startswith(f"{empty} ")
    assert run(broken)[:2] == (1, [])


def test_queries_may_be_given_together_or_apart():
    given = ["c", "w", "i", "--out", "o", "--query", "3", "5", "--query", "1"]
    assert _parser().parse_args(given).query == [3, 5, 1]


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["nothing.jpg"], "nothing.jpg"),
        (["IMAGE", "--layer", 3], "--layer 3"),
        (["IMAGE", "--query", 10], "query 10"),
        (["EMPTY"], "empty"),
    ],
)
def test_refusals(run, shapes, tmp_path, arguments, named):
    (tmp_path / "empty").mkdir()
    places = {"IMAGE": val_images(shapes)[0], "EMPTY": tmp_path / "empty"}
    status, names, error = run(*(places.get(x, x) for x in arguments))
    assert status == 2 and names == []
    assert error.startswith("error: ") and named in error and "Traceback" not in error


@pytest.mark.parametrize("which", ["image", "linked image", "linked config", "linked page"])
def test_sources_are_not_overwritten(
    which, shapes, tiny_config_file, checkpoint, tmp_path, monkeypatch, capsys
):
    """The check comes before slow steps."""
    monkeypatch.setattr("fastdetr_mmdet.visualize._load", None)
    picture = tmp_path / "out" / ("a_1_disc.png" if which == "linked page" else "a.png")
    picture.parent.mkdir()
    config = shutil.copy(tiny_config_file, tmp_path / "config.py")
    image = tmp_path / "a.jpg" if which.startswith("linked") else picture
    shutil.copy(val_images(shapes)[0], image)
    source = config if which == "linked config" else image
    if source != picture:
        picture.symlink_to(source)
    before = source.read_bytes()
    arguments = [config, checkpoint, image, "--out", picture.parent]
    assert main([str(x) for x in arguments]) == 2
    assert str(picture) in capsys.readouterr().err
    assert source.read_bytes() == before
