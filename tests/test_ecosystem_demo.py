"""The demo on a run so small that its figures mean nothing."""

import json
import shutil
import sys
from pathlib import Path

import cv2
import pytest
import torch
from support.runs import BIN, ITERS, VAL_IMAGES, log_rows, newest_metrics

from fastdetr_mmdet import __version__, demo
from fastdetr_mmdet.visualization import read_run_log


@pytest.fixture
def finished(tiny_run, tmp_path) -> Path:
    """A work directory with what training and test leave there, of the demo's own."""
    return Path(shutil.copytree(tiny_run.work_dir, tmp_path / "work"))


@pytest.fixture
def commands(tiny_run, monkeypatch) -> list[list[str]]:
    """The demo's commands, which are not run, with the tiny config for the demo's."""
    recorded = []
    monkeypatch.setattr(demo, "find_config", lambda name: tiny_run.config)
    monkeypatch.setattr(demo, "run", recorded.append)
    return recorded


def test_steps_and_results(tiny_run, finished, commands, capsys):
    data_root = str(tiny_run.data_root)
    demo.main(["--work-dir", str(finished), "--data-root", data_root])
    mim, config = str(BIN / "mim"), str(tiny_run.config)
    common = ["--work-dir", str(finished), "--cfg-options", f"data_root={data_root}/"]
    checkpoint = ["-C", str(tiny_run.checkpoint)]
    assert commands == [
        [sys.executable, "-m", "fastdetr_mmdet.datasets.shapes", data_root],
        [mim, "train", "fastdetr_mmdet", config, *common],
        [mim, "test", "fastdetr_mmdet", config, *checkpoint, *common],
    ]

    summary = json.loads((finished / "summary.json").read_text())
    assert set(summary) == {"bbox_mAP", "bbox_mAP_50", "train_seconds", "config", "versions"}
    tested = newest_metrics(tiny_run.work_dir)
    assert summary["bbox_mAP"] == tested["coco/bbox_mAP"]
    assert summary["bbox_mAP_50"] == tested["coco/bbox_mAP_50"]
    assert summary["train_seconds"] >= 0
    assert summary["config"] == "configs/demo/fast-detr_r18_shapes.py"
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


def test_pictures_only(tiny_run, finished, commands):
    (finished / "train_seconds.txt").write_text("12.5\n")
    arguments = ["--work-dir", str(finished), "--data-root", str(tiny_run.data_root)]
    demo.main([*arguments, "--pictures-only"])
    assert commands == []
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["train_seconds"] == 12.5
    assert (finished / "predictions.png").is_file() and (finished / "curves.png").is_file()


def test_pictures_only_without_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "run", pytest.fail)
    with pytest.raises(SystemExit, match="holds no finished demo run; run it without --pictures-o"):
        demo.main(["--work-dir", str(tmp_path), "--pictures-only"])
    assert not list(tmp_path.iterdir())


def test_a_failed_step_ends_the_demo(capfd):
    demo.run([sys.executable, "-c", "print('fine')"])
    with pytest.raises(SystemExit) as stopped:
        demo.run([sys.executable, "-c", "import sys; sys.exit(3)"])
    assert stopped.value.code == 3
    out, err = capfd.readouterr()
    assert f"$ {sys.executable} -c" in out and "fine" in out
    assert "the command above ended with exit status 3" in err


def test_a_failed_training_is_not_tested(tmp_path, monkeypatch):
    ran = []

    def run(command):
        ran.append(command[1])
        if command[1] == "train":
            sys.exit(1)

    monkeypatch.setattr(demo, "run", run)
    with pytest.raises(SystemExit):
        demo.main(["--work-dir", str(tmp_path), "--data-root", str(tmp_path / "data")])
    assert ran == ["-m", "train"]
    assert not (tmp_path / "train_seconds.txt").exists()


def test_config_is_found_and_a_missing_one_is_named():
    assert demo.find_config(demo.CONFIG).is_file()
    with pytest.raises(SystemExit, match=r"config demo/none\.py is missing; install"):
        demo.find_config("demo/none.py")


def test_a_run_that_was_not_tested(tmp_path):
    with pytest.raises(SystemExit, match="holds no test result; run: mim test fastdetr_mmdet"):
        demo.test_metrics(tmp_path)


def test_pictures_hold_ground_truth_and_predictions(tiny_run):
    pictures, classes = demo.predict(
        tiny_run.config, tiny_run.checkpoint, tiny_run.data_root, count=12
    )
    coco = json.loads((tiny_run.data_root / "annotations/val.json").read_text())
    with_objects = {annotation["image_id"] for annotation in coco["annotations"]}
    assert len(pictures) == len(with_objects) < VAL_IMAGES
    assert sum(len(picture.true_boxes) for picture in pictures) == len(coco["annotations"])
    first = [a for a in coco["annotations"] if a["image_id"] == min(with_objects)]
    x, y, w, h = first[0]["bbox"]
    assert pictures[0].true_boxes[0].tolist() == [x, y, x + w, y + h]
    assert (
        classes[pictures[0].true_labels[0]]
        == (coco["categories"][first[0]["category_id"] - 1]["name"])
    )
    assert len(pictures[0].boxes) == len(pictures[0].scores) == 60


def test_run_log(tiny_run):
    """Epochs grow along a curve, end at the last epoch, and values are the logged ones."""
    log = read_run_log(tiny_run.work_dir)
    assert {"loss", "loss_cls", "loss_bbox", "loss_iou"} <= set(log.losses)
    rows = log_rows(tiny_run.work_dir)
    for name, curve in log.losses.items():
        epochs, values = zip(*curve, strict=True)
        assert list(values) == [row[name] for row in rows]
        assert len(epochs) == 2 * ITERS and sorted(set(epochs)) == list(epochs)
        assert 0 < epochs[0] and epochs[ITERS - 1] == 1 and epochs[-1] == 2
    for name in ("coco/bbox_mAP", "coco/bbox_mAP_50"):
        assert [epoch for epoch, _ in log.metrics[name]] == [1, 2]


def test_run_log_is_of_the_newest_training(tmp_path):
    for name, epoch, loss in (("1", 1, 5.0), ("2", 7, 3.0)):
        folder = tmp_path / name / "vis_data"
        folder.mkdir(parents=True)
        row = dict(epoch=epoch, iter=4, loss=loss)
        (folder / "scalars.json").write_text(json.dumps(row) + "\n")
    folder = tmp_path / "3" / "vis_data"  # a test run
    folder.mkdir(parents=True)
    (folder / "scalars.json").write_text(json.dumps({"coco/bbox_mAP": 0.5, "step": 7}) + "\n")
    assert read_run_log(tmp_path).losses == {"loss": [(7.0, 3.0)]}


def test_run_log_of_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No training log .* train first: mim train"):
        read_run_log(tmp_path)
