"""Histories of trainings, from complete and damaged logs of one or several sessions."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fastdetr_mmdet.utils.run_history import Epoch, RunHistory, read_progress

LENGTH = 10  # iterations per epoch
START = datetime(2026, 5, 1, 12, 0, 0)


def session(
    work_dir: Path,
    name: str,
    epochs: range,
    begin: datetime = START,
    text_log: bool = True,
    loss: float = 1.0,
    seconds: float = 6.0,
    length: int = LENGTH,
    done: int = 0,
) -> Path:
    """Write logs like mmengine: two rows per epoch, then a validation of half a minute.

    mmengine counts iterations from `done`, for any length of epochs.
    """
    folder = work_dir / name / "vis_data"
    folder.mkdir(parents=True)
    rows, lines = [], [f"{begin:%Y/%m/%d %H:%M:%S} - mmengine - INFO - Checkpoints will be saved"]
    now = begin
    for epoch in epochs:
        for inner in (length // 2, length):
            now += timedelta(seconds=length / 2 * seconds)
            number = (done or (epoch - 1) * length) + inner
            rows.append(
                dict(loss=loss, loss_cls=loss / 2, lr=0.1, time=seconds, epoch=epoch,
                     iter=number, step=number)
            )  # fmt: skip
            stamp = f"{now:%Y/%m/%d %H:%M:%S} - mmengine - INFO - "
            lines.append(f"{stamp}Epoch(train) [{epoch}][{inner:>4}/{length}]  loss: {loss}")
        done += length if done else 0
        now += timedelta(seconds=30)
        rows.append({"coco/bbox_mAP": epoch / 100, "coco/bbox_mAP_s": -1.0, "step": epoch})
        stamp = f"{now:%Y/%m/%d %H:%M:%S} - mmengine - INFO - "
        lines.append(f"{stamp}Epoch(val) [{epoch}][4/4]    coco/bbox_mAP: {epoch / 100}")
    (folder / "scalars.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if text_log:
        folder.parent.joinpath(f"{name}.log").write_text("\n".join(lines) + "\n")
    return folder


def points(curve):
    return [(p.progress, round(p.minutes, 3), p.value) for p in curve]


def test_one_session(tmp_path):
    session(tmp_path, "20260501_120000", range(1, 3))
    history = RunHistory.read(tmp_path)
    assert points(history.losses["loss"]) == [
        (0.5, 0.5, 1.0),
        (1.0, 1.0, 1.0),
        (1.5, 2.0, 1.0),  # half a minute of validation in between
        (2.0, 2.5, 1.0),
    ]
    assert points(history.metrics["coco/bbox_mAP"]) == [(1.0, 1.5, 0.01), (2.0, 3.0, 0.02)]
    assert set(history.losses) == {"loss", "loss_cls"}
    assert set(history.metrics) == {"coco/bbox_mAP"}  # -1: no small objects
    assert (history.unit, history.sessions, history.notes) == ("epoch", 1, [])
    assert (history.progress, history.minutes) == (2.0, 3.0)


def test_without_the_text_log(tmp_path):
    """From the mean time of iterations, without validations."""
    session(tmp_path, "20260501_120000", range(1, 3), text_log=False)
    history = RunHistory.read(tmp_path)
    assert points(history.losses["loss"]) == [
        (0.5, 0.5, 1.0),
        (1.0, 1.0, 1.0),
        (1.5, 1.5, 1.0),
        (2.0, 2.0, 1.0),
    ]
    assert [p.minutes for p in history.metrics["coco/bbox_mAP"]] == pytest.approx([1.0, 2.0])


def test_resumed(tmp_path):
    """The pause of a day and lost iterations do not count."""
    session(tmp_path, "20260501_120000", range(1, 4))
    later = START + timedelta(days=1)
    session(tmp_path, "20260502_120000", range(3, 5), later, loss=0.5)
    history = RunHistory.read(tmp_path)
    assert [p.progress for p in history.losses["loss"]] == [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]
    assert [p.value for p in history.losses["loss"]] == [1.0] * 4 + [0.5] * 4
    # two epochs of 1.5 minutes, then the second session's
    assert points(history.losses["loss"])[4:6] == [(2.5, 3.5, 0.5), (3.0, 4.0, 0.5)]
    assert points(history.metrics["coco/bbox_mAP"])[2:] == [(3.0, 4.5, 0.03), (4.0, 6.0, 0.04)]
    assert history.sessions == 2
    (note,) = history.notes
    assert "20260502_120000" in note and "epoch 2.5" in note


@pytest.mark.parametrize("length", [4, 20])
def test_resumed_with_another_batch_size(length, tmp_path):
    """Positions are joined by epochs, not by iterations."""
    session(tmp_path, "20260501_120000", range(1, 3))
    session(tmp_path, "20260502_120000", range(3, 5), length=length, done=2 * LENGTH)
    history = RunHistory.read(tmp_path)
    assert [p.progress for p in history.losses["loss"]] == [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]
    assert [p.progress for p in history.metrics["coco/bbox_mAP"]] == [1, 2, 3, 4]
    assert (history.sessions, history.notes) == (2, [])
    assert history.minutes == pytest.approx(3 + 2 * (length / 10 + 0.5))


def test_started_again(tmp_path):
    """A second training in the same folder, not resumed, replaces the first."""
    session(tmp_path, "20260501_120000", range(1, 4))
    session(tmp_path, "20260502_120000", range(1, 2), loss=0.25)
    history = RunHistory.read(tmp_path)
    assert points(history.losses["loss"]) == [(0.5, 0.5, 0.25), (1.0, 1.0, 0.25)]
    assert history.sessions == 1 and "(all)" in history.notes[0]


def test_killed_while_writing(tmp_path):
    folder = session(tmp_path, "20260501_120000", range(1, 3))
    file = folder / "scalars.json"
    file.write_text(file.read_text()[:-20])
    history = RunHistory.read(tmp_path)
    assert len(history.metrics["coco/bbox_mAP"]) == 1
    (note,) = history.notes
    assert note.startswith("20260501_120000: 1 line")


def test_values_that_are_no_numbers(tmp_path):
    folder = session(tmp_path, "20260501_120000", range(1, 2))
    file = folder / "scalars.json"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[1]["loss"] = float("nan")
    file.write_text("[]\nnull\n" + "".join(json.dumps(row) + "\n" for row in rows))
    history = RunHistory.read(tmp_path)
    assert points(history.losses["loss"]) == [(0.5, 0.5, 1.0)]
    broken, gap = history.notes
    assert "2 lines" in broken and gap.startswith("1 ") and "NaN" in gap


def test_training_by_iterations(tmp_path):
    folder = tmp_path / "20260501_120000" / "vis_data"
    folder.mkdir(parents=True)
    rows = [dict(loss=2.0, time=3.0, iter=n, step=n) for n in (20, 40)]
    rows.append({"coco/bbox_mAP": 0.1, "step": 40})
    (folder / "scalars.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    history = RunHistory.read(tmp_path)
    assert history.unit == "iteration"
    assert points(history.losses["loss"]) == [(20.0, 1.0, 2.0), (40.0, 2.0, 2.0)]
    assert points(history.metrics["coco/bbox_mAP"]) == [(40.0, 2.0, 0.1)]


def test_test_runs_do_not_count(tmp_path):
    session(tmp_path, "20260501_120000", range(1, 2))
    folder = tmp_path / "20260503_120000" / "vis_data"
    folder.mkdir(parents=True)
    (folder / "scalars.json").write_text(json.dumps({"coco/bbox_mAP": 0.9, "step": 1}) + "\n")
    assert [p.value for p in RunHistory.read(tmp_path).metrics["coco/bbox_mAP"]] == [0.01]


def test_nothing_logged(tmp_path):
    assert len(RunHistory.read(tmp_path).notes) == 1
    folder = tmp_path / "20260501_120000" / "vis_data"
    folder.mkdir(parents=True)
    (folder / "scalars.json").write_text("")
    log = "2026/05/01 12:00:00 - mmengine - INFO - Checkpoints will be saved to /x\n"
    (folder.parent / "20260501_120000.log").write_text(log)
    session_note, _ = RunHistory.read(tmp_path).notes
    assert session_note.startswith("20260501_120000")


def test_a_real_log(tiny_run):
    """Losses and metrics equal the log's rows."""
    rows = [
        json.loads(line)
        for path in sorted(tiny_run.work_dir.glob("*/vis_data/scalars.json"))
        for line in path.read_text().splitlines()
    ]
    history = RunHistory.read(tiny_run.work_dir)
    assert [p.value for p in history.losses["loss"]] == [r["loss"] for r in rows if "loss" in r]
    assert [p.progress for p in history.losses["loss"]] == [n / 4 for n in range(1, 9)]
    assert [p.progress for p in history.metrics["coco/bbox_mAP"]] == [1.0, 2.0]
    minutes = [p.minutes for p in history.losses["loss"]]
    assert minutes == sorted(minutes) and 0 < minutes[-1] < 5
    assert history.notes == []


def test_epochs_of_the_progress_file(tmp_path):
    """Minutes add up over all epochs, also over those without validation."""
    epochs = [
        dict(epoch=1, train_seconds=60, train_cpu_seconds=30),
        dict(epoch=2, train_seconds=60, train_cpu_seconds=30, val_seconds=600, metrics={"a": 1.0}),
    ]
    progress = dict(parameters=7, trained_parameters=7, device="cuda", epochs=epochs)
    (tmp_path / "progress.json").write_text(json.dumps(progress))
    history = RunHistory.read(tmp_path)
    assert history.epochs == [Epoch(1, 1.0, 0.5, {}), Epoch(2, 2.0, 1.0, {"a": 1.0})]
    assert (history.parameters, history.device) == (7, "cuda")


@pytest.mark.parametrize("text", ["", "\0\0\0"])
def test_a_progress_file_that_a_power_cut_emptied_counts_as_none(text, tmp_path):
    (tmp_path / "progress.json").write_text(text)
    assert read_progress(tmp_path)["epochs"] == []


@pytest.mark.parametrize("text", ["[]", "{", '{"epochs": [{}]}', '{"epochs": []}'])
def test_a_broken_progress_file_is_named(text, tmp_path):
    (tmp_path / "progress.json").write_text(text)
    with pytest.raises(ValueError, match=r"progress\.json"):
        read_progress(tmp_path)
    history = RunHistory.read(tmp_path)
    assert "progress.json" in history.notes[0] and history.epochs == []
