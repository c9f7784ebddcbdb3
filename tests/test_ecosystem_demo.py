"""The demo, on a very small run."""

import json
import shutil
import sys
from pathlib import Path

import cv2
import pytest
import torch
from support.runs import BIN, VAL_IMAGES, newest_metrics

from fastdetr_mmdet import __version__, demo, visualization
from fastdetr_mmdet.utils import plotting
from fastdetr_mmdet.utils.cli import UserError
from fastdetr_mmdet.utils.run_history import RunHistory


@pytest.fixture
def finished(tiny_run, tmp_path) -> Path:
    """A demo work directory after training and test."""
    return Path(shutil.copytree(tiny_run.work_dir, tmp_path / "work"))


@pytest.fixture
def commands(tiny_run, monkeypatch) -> list[list[str]]:
    """Records the demo's commands instead of running them, with the tiny config."""
    recorded = []
    monkeypatch.setattr(demo, "CONFIG", str(tiny_run.config))
    monkeypatch.setattr(demo, "run", recorded.append)
    return recorded


def test_steps_and_results(tiny_run, finished, commands, capsys, monkeypatch):
    drawn, draw = [], visualization.draw_predictions
    spy = lambda *args: drawn.extend(args[:2]) or draw(*args)  # noqa: E731
    monkeypatch.setattr(visualization, "draw_predictions", spy)
    data_root = str(tiny_run.data_root)
    assert demo.main(["--work-dir", str(finished), "--data-root", data_root]) == 0
    mim, config = str(BIN / "mim"), str(tiny_run.config)
    common = ["--work-dir", str(finished), "--cfg-options", f"data_root={data_root}/"]
    checkpoint = ["-C", str(tiny_run.checkpoint)]
    assert commands == [
        [sys.executable, "-m", "fastdetr_mmdet", "shapes", data_root],
        [mim, "train", "fastdetr_mmdet", config, *common],
        [mim, "test", "fastdetr_mmdet", config, *checkpoint, *common],
    ]

    summary = json.loads((finished / "summary.json").read_text())
    assert set(summary) == {"bbox_mAP", "bbox_mAP_50", "train_seconds", "config", "versions"}
    tested = newest_metrics(tiny_run.work_dir)
    assert summary["bbox_mAP"] == tested["coco/bbox_mAP"]
    assert summary["bbox_mAP_50"] == tested["coco/bbox_mAP_50"]
    assert summary["train_seconds"] >= 0
    assert summary["config"] == f"configs/{demo.CONFIG}"
    assert summary["versions"]["fastdetr_mmdet"] == __version__
    assert summary["versions"]["torch"] == torch.__version__
    assert {"python", "mmengine", "mmcv", "mmdet"} <= set(summary["versions"])
    for name in ("predictions.png", "curves.png"):
        picture = cv2.imread(str(finished / name))
        assert min(picture.shape[:2]) > 300 and picture.std() > 10
    report = (finished / "report.html").read_text()
    assert f"<strong>{summary['bbox_mAP']:.3f}</strong>" in report
    assert "epoch_2.pth" in report and report.count("<svg") > 20
    printed = capsys.readouterr().out
    assert '"bbox_mAP"' in printed and "predictions.png" in printed
    assert printed.splitlines()[-1] == str(finished / "report.html")

    # the pictures: ground truth and predictions of the validation images that have objects
    images, classes = drawn
    coco = json.loads((tiny_run.data_root / "annotations/val.json").read_text())
    with_objects = {annotation["image_id"] for annotation in coco["annotations"]}
    assert len(images) == len(with_objects) < VAL_IMAGES
    assert sum(len(image.true_boxes) for image in images) == len(coco["annotations"])
    first = next(a for a in coco["annotations"] if a["image_id"] == min(with_objects))
    x, y, w, h = first["bbox"]
    assert images[0].true_boxes[0].tolist() == [x, y, x + w, y + h]
    name = coco["categories"][first["category_id"] - 1]["name"]
    assert classes[images[0].true_labels[0]] == name
    assert len(images[0].boxes) == len(images[0].scores) == 60


def test_pictures_only(tiny_run, finished, commands, monkeypatch):
    """Of the training that the folder holds."""
    (finished / "train_seconds.txt").write_text("12.5\n")
    written = []
    monkeypatch.setattr(demo, "write_results", lambda *args: written.append(args) or {})
    arguments = ["--work-dir", str(finished), "--data-root", str(tiny_run.data_root)]
    assert demo.main([*arguments, "--pictures-only"]) == 0
    assert commands == []
    assert written == [(finished, tiny_run.data_root, tiny_run.config, 12.5)]


def test_pictures_only_without_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "run", pytest.fail)
    assert demo.main(["--work-dir", str(tmp_path), "--pictures-only"]) == 1
    assert str(tmp_path) in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_failed_step_ends_the_demo(capfd):
    demo.run([sys.executable, "-c", "print('fine')"])
    with pytest.raises(UserError, match="3"):
        demo.run([sys.executable, "-c", "import sys; sys.exit(3)"])
    out, _ = capfd.readouterr()
    assert f"$ {sys.executable} -c" in out and "fine" in out


def test_a_failed_training_is_not_tested(tmp_path, monkeypatch):
    ran = []

    def run(command):
        ran.append(command[1])
        if command[1] == "train":
            raise UserError("failed")

    monkeypatch.setattr(demo, "run", run)
    assert demo.main(["--work-dir", str(tmp_path), "--data-root", str(tmp_path / "data")]) == 1
    assert ran == ["-m", "train"]
    assert not (tmp_path / "train_seconds.txt").exists()


def test_a_run_that_was_not_tested(tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)):
        demo.test_metrics(tmp_path)


def test_checkpoint_that_cannot_be_run(tiny_run, finished, commands, capsys):
    """Its data is missing."""
    (finished / "train_seconds.txt").write_text("12.5\n")
    arguments = ["--work-dir", str(finished), "--data-root", str(finished / "none")]
    assert demo.main([*arguments, "--pictures-only"]) == 1
    assert str(finished / "none") in capsys.readouterr().err
    assert not (finished / "predictions.png").exists()


def test_curves_are_those_of_the_log(tiny_run, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(plotting, "save_charts", lambda charts, *_: saved.extend(charts))
    history = RunHistory.read(tiny_run.work_dir)
    demo.plot_curves(history, tmp_path / "a.png", "")
    losses, metrics = saved
    assert [list(line.y) for line in losses.lines] == [
        [point.value for point in history.losses[name]] for name in demo.LOSSES
    ]
    last = history.metrics["coco/bbox_mAP"][-1].value
    assert metrics.lines[0].name == f"AP ({last:.3f})" and list(metrics.lines[0].x) == [1, 2]
