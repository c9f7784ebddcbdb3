"""Curves, targets, table, picture and JSON of made-up runs."""

import csv
import json
from dataclasses import replace

import cv2
import pytest

from fastdetr_mmdet.convergence.results import (
    Curve,
    Point,
    Reference,
    charts,
    markdown_table,
    notes_on,
    read_curve,
    read_reference,
    summarise,
    write_results,
)
from fastdetr_mmdet.convergence.runs import Run
from fastdetr_mmdet.utils.cli import UsageError


def curve(name, seed, *aps, minutes=2.0, cpu=1.0, failed=None):
    """A curve with a validation every second epoch, and minutes per epoch."""
    points = [
        Point(2 * i, ap, 2 * ap, 2 * i * minutes, 2 * i * cpu) for i, ap in enumerate(aps, start=1)
    ]
    return Curve(name, seed, 1000, tuple(points), failed)


SLOW = curve("slow", 0, 0.0, 0.1, 0.1), curve("slow", 1, 0.0, 0.1, 0.2)
FAST = curve("fast", 0, 0.2, 0.3, 0.4, cpu=3.0), curve("fast", 1, 0.1, 0.4, 0.5, cpu=3.0)


def test_mean_and_spread():
    slow, fast = summarise([SLOW[0], FAST[0], SLOW[1], FAST[1]])
    assert (slow.name, slow.seeds, slow.epochs) == ("slow", (0, 1), (2, 4, 6))
    assert fast.mean == pytest.approx((0.15, 0.35, 0.45))
    assert fast.low == (0.1, 0.3, 0.4)
    assert fast.high == (0.2, 0.4, 0.5)
    assert (fast.minutes_per_epoch, fast.cpu_minutes_per_epoch) == (2.0, 3.0)


def test_targets_are_half_of_the_best_and_the_first_ones_best():
    summaries = summarise([*SLOW, *FAST])
    assert [reached.target for reached in summaries[0].reached] == [0.15, 0.225]


def test_reached():
    slow, fast = summarise([*SLOW, *FAST], targets=[0.2, 0.4, 0.6])
    first, second, third = fast.reached
    assert (first.runs, first.of) == (2, 2)
    assert (first.epochs, first.minutes, first.cpu_minutes) == (3.0, 6.0, 9.0)  # epochs 2 and 4
    assert (second.epochs, third.epochs, third.runs) == (5.0, None, 0)
    assert (slow.reached[0].runs, slow.reached[0].of, slow.reached[0].epochs) == (1, 2, 6.0)


def test_table_says_what_is_not_reached():
    table = markdown_table(summarise([*SLOW, *FAST], targets=[0.2, 0.4]))
    head, _, slow, fast = table.splitlines()
    assert "AP 0.200" in head and "AP 0.400" in head
    assert "6 / 6.0 / 12.0 (only 1 of 2 seeds)" in slow
    assert "not reached" in slow
    assert "3 / 9.0 / 6.0" in fast and "not reached" not in fast
    assert "0.150 (0.100 to 0.200)" in slow


def test_a_run_that_ended_early_does_not_shorten_the_others():
    """The mean leaves out only epochs that not all seeds have."""
    half = Curve("fast", 1, 1000, FAST[1].points[:2], "gone")
    (fast,) = summarise([FAST[0], half], targets=[0.4])
    assert fast.epochs == (2, 4)
    assert (fast.reached[0].runs, fast.reached[0].epochs) == (2, 5.0)
    table = markdown_table(summarise([*SLOW, FAST[0], half]))
    assert table.count("epoch 4 only") == 1 and "0.350 (0.300 to 0.400), epoch 4 only" in table


def test_no_target_at_zero():
    assert summarise([curve("dead", 0, 0.0, 0.0)])[0].reached == ()


def test_curve_of_a_run(tmp_path):
    """Minutes add up over all epochs, also those without validation; COCO's -1 is not an AP."""
    run = Run("fast", 0, 3, tmp_path)
    run.work_dir.mkdir(parents=True)
    epochs = [
        dict(epoch=1, train_seconds=60, train_cpu_seconds=30),
        dict(
            epoch=2,
            train_seconds=60,
            train_cpu_seconds=30,
            val_seconds=600,
            metrics={"coco/bbox_mAP": -1.0, "coco/bbox_mAP_50": 0.5},
        ),
        dict(epoch=3, train_seconds=60, train_cpu_seconds=30),
    ]
    progress = dict(parameters=7, trained_parameters=7, epochs=epochs)
    (run.work_dir / "progress.json").write_text(json.dumps(progress))
    assert read_curve(run) == Curve(
        "fast", 0, 7, (Point(2, 0.0, 0.5, 2.0, 1.0),), trained=3, epochs=3
    )
    assert run.final_ap is None
    epochs[2]["metrics"] = {"coco/bbox_mAP": 0.3, "coco/bbox_mAP_50": 0.5}
    (run.work_dir / "progress.json").write_text(json.dumps(progress))
    assert run.final_ap == 0.3
    (run.work_dir / "progress.json").write_text("{")
    assert read_curve(run).points == ()  # the hook reports it when the run continues


def test_files(tmp_path):
    """References add a panel to the picture, and all files hold the same figures."""
    gone = Curve("fast", 1, 1000, FAST[1].points[:2], "gone", trained=4, epochs=6)
    curves = [*SLOW, FAST[0], gone]
    reference = Reference("COCO", "somewhere", {"theirs": ((12.0, 0.33), (50.0, 0.4))})
    table, picture, data, points = write_results(tmp_path, curves, {"epochs": 6})
    plain = cv2.imread(str(picture))
    write_results(tmp_path, curves, {"epochs": 6}, references=[reference])
    assert cv2.imread(str(picture)).shape[1] > plain.shape[1] * 1.4
    note = "fast: seed 1 has 4 of 6 epochs and failed; figures up to epoch 4"
    assert f"\n- {note}.\n" in table.read_text()

    loaded = json.loads(data.read_text())
    assert loaded["budget"] == {"epochs": 6}
    assert [run["failed"] for run in loaded["runs"]] == [None, None, None, "gone"]
    assert loaded["notes"] == [note]
    assert loaded["summary"][1]["mean"] == [0.15, 0.35]
    assert loaded["references"][0]["series"] == {"theirs": [[12.0, 0.33], [50.0, 0.4]]}
    assert set(loaded["versions"]) >= {"torch", "mmdet", "fastdetr_mmdet"}

    rows = list(csv.DictReader(points.open()))
    assert len(rows) == 3 + 3 + 3 + 2
    assert rows[-1] == {
        "config": "fast",
        "seed": "1",
        "epoch": "4",
        "ap": "0.4",
        "ap50": "0.8",
        "minutes": "8.0",
        "cpu_minutes": "12.0",
    }


def test_seeds_of_different_length():
    """Without common epochs there is no mean; seeds without figures are named."""
    early = Curve("a", 0, 7, (Point(1, 0.1, 0.2, 1.0, 1.0),), trained=1, epochs=4)
    late = Curve("a", 1, 7, (Point(2, 0.1, 0.2, 1.0, 1.0),), trained=2, epochs=4)
    none = Curve("a", 1, 7, (), epochs=4)
    (note, _) = notes_on([early, late], summarise([early, late]))
    assert note.endswith("no mean, since no epoch is validated with every seed")
    (note,) = notes_on([early, none], summarise([early, none]))
    assert note == (
        "a: seed 0 has 1 of 4 epochs, seed 1 has 0 of 4 epochs; figures up to epoch 1, "
        "only of seed 0"
    )
    table = markdown_table(summarise([early, none], targets=[0.3]))
    assert "| 0.100, epoch 1 only |" in table and "not reached yet" in table


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_charts(device):
    """Over CPU time, or wall-clock time on other devices."""
    curves = [replace(each, device=device) for each in (*SLOW, *FAST)]
    reference = Reference("COCO", "somewhere", {"theirs": ((12.0, 0.33), (50.0, 0.4))})
    by_epoch, by_time, other = charts(summarise(curves, [0.2, 0.9]), curves, [reference])
    assert [line.name for line in by_epoch.lines] == ["slow", "fast"]
    assert list(by_epoch.lines[1].x) == [2, 4, 6] and by_epoch.y_range == (0, 0.6)
    assert by_epoch.levels == {"target 0.200": 0.2, "target 0.900": 0.9}
    assert by_epoch.lines[0].band == ((0.0, 0.1, 0.1), (0.0, 0.1, 0.2))
    assert ("CPU" in by_time.x_label) == (device == "cpu")
    assert by_time.lines[1].x == ([6.0, 12.0, 18.0] if device == "cpu" else [4.0, 8.0, 12.0])
    assert other.note == "somewhere" and not other.lines[0].connected
    assert other.lines[0].look not in {line.look for line in by_epoch.lines}


def test_reference_file(tmp_path):
    path = tmp_path / "reference.json"
    path.write_text('{"title": "COCO", "source": "log", "series": {"a": [[1, 0.2], [2, 0.3]]}}')
    assert read_reference(path) == Reference("COCO", "log", {"a": ((1.0, 0.2), (2.0, 0.3))})
    path.write_text('{"title": "COCO", "source": "log", "series": {"a": [[1, 20.0]]}}')
    with pytest.raises(UsageError, match="a has AP 20"):
        read_reference(path)
    path.write_text('{"title": "COCO"}')
    with pytest.raises(UsageError, match=r"reference\.json"):
        read_reference(path)
    with pytest.raises(UsageError, match=r"none\.json"):
        read_reference(tmp_path / "none.json")
