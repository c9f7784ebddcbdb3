"""Curves from the logs of one or several sessions, whole or cut off."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fastdetr_mmdet.report.history import read_history

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
) -> Path:
    """Write what mmengine writes: two rows per epoch, then a validation of half a minute."""
    folder = work_dir / name / "vis_data"
    folder.mkdir(parents=True)
    rows, lines = [], [f"{begin:%Y/%m/%d %H:%M:%S} - mmengine - INFO - Checkpoints will be saved"]
    now = begin
    for epoch in epochs:
        for inner in (5, 10):
            now += timedelta(seconds=5 * seconds)
            rows.append(
                dict(loss=loss, loss_cls=loss / 2, lr=0.1, time=seconds, epoch=epoch,
                     iter=(epoch - 1) * LENGTH + inner, step=(epoch - 1) * LENGTH + inner)
            )  # fmt: skip
            stamp = f"{now:%Y/%m/%d %H:%M:%S} - mmengine - INFO - "
            lines.append(f"{stamp}Epoch(train) [{epoch}][{inner:>4}/{LENGTH}]  loss: {loss}")
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
    history = read_history(tmp_path)
    assert points(history.losses["loss"]) == [
        (0.5, 0.5, 1.0),
        (1.0, 1.0, 1.0),
        (1.5, 2.0, 1.0),  # half a minute of validation in between
        (2.0, 2.5, 1.0),
    ]
    assert points(history.metrics["coco/bbox_mAP"]) == [(1.0, 1.5, 0.01), (2.0, 3.0, 0.02)]
    assert set(history.losses) == {"loss", "loss_cls"}
    assert set(history.metrics) == {"coco/bbox_mAP"}  # -1: there are no small objects
    assert (history.unit, history.sessions, history.notes) == ("epoch", 1, [])
    assert (history.progress, history.minutes) == (2.0, 3.0)


def test_without_the_text_log(tmp_path):
    """The mean time of an iteration, which knows nothing of validations."""
    session(tmp_path, "20260501_120000", range(1, 3), text_log=False)
    history = read_history(tmp_path)
    assert points(history.losses["loss"]) == [
        (0.5, 0.5, 1.0),
        (1.0, 1.0, 1.0),
        (1.5, 1.5, 1.0),
        (2.0, 2.0, 1.0),
    ]
    assert [p.minutes for p in history.metrics["coco/bbox_mAP"]] == pytest.approx([1.0, 2.0])


def test_resumed(tmp_path):
    """The pause of a day does not count, nor what the kill destroyed."""
    session(tmp_path, "20260501_120000", range(1, 4))
    later = START + timedelta(days=1)
    session(tmp_path, "20260502_120000", range(3, 5), later, loss=0.5)
    history = read_history(tmp_path)
    assert [p.progress for p in history.losses["loss"]] == [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]
    assert [p.value for p in history.losses["loss"]] == [1.0] * 4 + [0.5] * 4
    # two epochs of 1.5 minutes, then the second session's
    assert points(history.losses["loss"])[4:6] == [(2.5, 3.5, 0.5), (3.0, 4.0, 0.5)]
    assert points(history.metrics["coco/bbox_mAP"])[2:] == [(3.0, 4.5, 0.03), (4.0, 6.0, 0.04)]
    assert history.sessions == 2
    assert history.notes == [
        "20260502_120000 trained again what earlier sessions had logged (from epoch 2.5 on); "
        "the later rows are shown."
    ]


def test_started_again(tmp_path):
    """A second training in the same folder, not resumed, is the run."""
    session(tmp_path, "20260501_120000", range(1, 4))
    session(tmp_path, "20260502_120000", range(1, 2), loss=0.25)
    history = read_history(tmp_path)
    assert points(history.losses["loss"]) == [(0.5, 0.5, 0.25), (1.0, 1.0, 0.25)]
    assert history.sessions == 1 and "(all)" in history.notes[0]


def test_killed_while_writing(tmp_path):
    folder = session(tmp_path, "20260501_120000", range(1, 3))
    file = folder / "scalars.json"
    file.write_text(file.read_text()[:-20])
    history = read_history(tmp_path)
    assert len(history.metrics["coco/bbox_mAP"]) == 1
    (note,) = history.notes
    assert note == "20260501_120000: 1 line of the log is cut off or unreadable, and left out."


def test_values_that_are_no_numbers(tmp_path):
    folder = session(tmp_path, "20260501_120000", range(1, 2))
    file = folder / "scalars.json"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[1]["loss"] = float("nan")
    file.write_text("[]\nnull\n" + "".join(json.dumps(row) + "\n" for row in rows))
    history = read_history(tmp_path)
    assert points(history.losses["loss"]) == [(0.5, 0.5, 1.0)]
    assert "1 logged values are NaN or infinite; the curves have gaps there." in history.notes
    assert any("2 lines of the log are" in note for note in history.notes)


def test_training_by_iterations(tmp_path):
    folder = tmp_path / "20260501_120000" / "vis_data"
    folder.mkdir(parents=True)
    rows = [dict(loss=2.0, time=3.0, iter=n, step=n) for n in (20, 40)]
    rows.append({"coco/bbox_mAP": 0.1, "step": 40})
    (folder / "scalars.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    history = read_history(tmp_path)
    assert history.unit == "iteration"
    assert points(history.losses["loss"]) == [(20.0, 1.0, 2.0), (40.0, 2.0, 2.0)]
    assert points(history.metrics["coco/bbox_mAP"]) == [(40.0, 2.0, 0.1)]


def test_test_runs_do_not_count(tmp_path):
    session(tmp_path, "20260501_120000", range(1, 2))
    folder = tmp_path / "20260503_120000" / "vis_data"
    folder.mkdir(parents=True)
    (folder / "scalars.json").write_text(json.dumps({"coco/bbox_mAP": 0.9, "step": 1}) + "\n")
    assert [p.value for p in read_history(tmp_path).metrics["coco/bbox_mAP"]] == [0.01]


def test_nothing_logged(tmp_path):
    assert read_history(tmp_path).notes == [
        "There is no training log, or it is empty: no curves.",
    ]
    folder = tmp_path / "20260501_120000" / "vis_data"
    folder.mkdir(parents=True)
    (folder / "scalars.json").write_text("")
    log = "2026/05/01 12:00:00 - mmengine - INFO - Checkpoints will be saved to /x\n"
    (folder.parent / "20260501_120000.log").write_text(log)
    notes = read_history(tmp_path).notes
    assert notes[0] == "20260501_120000: a session that logged nothing; it is left out."


def test_a_real_log(tiny_run):
    """The same losses and metrics as the log's own rows."""
    rows = [
        json.loads(line)
        for path in sorted(tiny_run.work_dir.glob("*/vis_data/scalars.json"))
        for line in path.read_text().splitlines()
    ]
    history = read_history(tiny_run.work_dir)
    assert [p.value for p in history.losses["loss"]] == [r["loss"] for r in rows if "loss" in r]
    assert [p.progress for p in history.losses["loss"]] == [n / 4 for n in range(1, 9)]
    assert [p.progress for p in history.metrics["coco/bbox_mAP"]] == [1.0, 2.0]
    minutes = [p.minutes for p in history.losses["loss"]]
    assert minutes == sorted(minutes) and 0 < minutes[-1] < 5
    assert history.notes == []
