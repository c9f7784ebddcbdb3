"""Histories of trainings, from complete and damaged logs of one or several sessions."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from support.runs import log_rows

from fastdetr_mmdet.utils.run_history import Epoch, RunHistory, read_progress

LENGTH = 10  # iterations per epoch
START = datetime(2026, 5, 1, 12, 0, 0)


def stamp(time: datetime) -> str:
    return f"{time:%Y/%m/%d %H:%M:%S} - mmengine - INFO - "


def write(work_dir: Path, name: str, rows: list[dict], lines: list[str] | None = None) -> Path:
    """Write the logs of a session; return its file of rows."""
    file = work_dir / name / "vis_data" / "scalars.json"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if lines is not None:
        file.parents[1].joinpath(f"{name}.log").write_text("\n".join(lines) + "\n")
    return file


def session(
    work_dir: Path,
    name: str,
    epochs: range,
    begin: datetime = START,
    text_log: bool = True,
    loss: float = 1.0,
    length: int = LENGTH,
    done: int = 0,
) -> Path:
    """Write logs like mmengine: two rows per epoch, then a validation of half a minute.

    mmengine counts iterations from `done`, for any length of epochs.
    """
    rows, lines, now = [], [f"{stamp(begin)}Checkpoints will be saved"], begin
    for epoch in epochs:
        for inner in (length // 2, length):
            now += timedelta(seconds=length / 2 * 6)
            number = (done or (epoch - 1) * length) + inner
            row = dict(loss=loss, loss_cls=loss / 2, lr=0.1, time=6.0, epoch=epoch)
            rows.append(dict(row, iter=number, step=number))
            lines.append(f"{stamp(now)}Epoch(train) [{epoch}][{inner:>4}/{length}]  loss: {loss}")
        done += length if done else 0
        now += timedelta(seconds=30)
        rows.append({"coco/bbox_mAP": epoch / 100, "coco/bbox_mAP_s": -1.0, "step": epoch})
        lines.append(f"{stamp(now)}Epoch(val) [{epoch}][4/4]    coco/bbox_mAP: {epoch / 100}")
    return write(work_dir, name, rows, lines if text_log else None)


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
    assert points(history.losses["loss"]) == [(n, n, 1.0) for n in (0.5, 1.0, 1.5, 2.0)]
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
    file = session(tmp_path, "20260501_120000", range(1, 3))
    file.write_text(file.read_text()[:-20])
    history = RunHistory.read(tmp_path)
    assert len(history.metrics["coco/bbox_mAP"]) == 1
    (note,) = history.notes
    assert note.startswith("20260501_120000: 1 line")


def test_values_that_are_no_numbers(tmp_path):
    file = session(tmp_path, "20260501_120000", range(1, 2))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[1]["loss"] = float("nan")
    file.write_text("[]\nnull\n" + "".join(json.dumps(row) + "\n" for row in rows))
    history = RunHistory.read(tmp_path)
    assert points(history.losses["loss"]) == [(0.5, 0.5, 1.0)]
    broken, gap = history.notes
    assert "2 lines" in broken and gap.startswith("1 ") and "NaN" in gap


def test_training_by_iterations(tmp_path):
    rows: list[dict] = [dict(loss=2.0, time=3.0, iter=n, step=n) for n in (20, 40)]
    write(tmp_path, "20260501_120000", [*rows, {"coco/bbox_mAP": 0.1, "step": 40}])
    history = RunHistory.read(tmp_path)
    assert history.unit == "iteration"
    assert points(history.losses["loss"]) == [(20.0, 1.0, 2.0), (40.0, 2.0, 2.0)]
    assert points(history.metrics["coco/bbox_mAP"]) == [(40.0, 2.0, 0.1)]


def test_test_runs_do_not_count(tmp_path):
    session(tmp_path, "20260501_120000", range(1, 2))
    write(tmp_path, "20260503_120000", [{"coco/bbox_mAP": 0.9, "step": 1}])
    assert [p.value for p in RunHistory.read(tmp_path).metrics["coco/bbox_mAP"]] == [0.01]


def test_nothing_logged(tmp_path):
    assert len(RunHistory.read(tmp_path).notes) == 1
    write(tmp_path, "20260501_120000", [], [f"{stamp(START)}Checkpoints will be saved to /x"])
    session_note, _ = RunHistory.read(tmp_path).notes
    assert session_note.startswith("20260501_120000")


def test_a_real_log(tiny_run):
    """Losses and metrics equal the log's rows."""
    history, rows = RunHistory.read(tiny_run.work_dir), log_rows(tiny_run.work_dir)
    assert [p.value for p in history.losses["loss"]] == [row["loss"] for row in rows]
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
