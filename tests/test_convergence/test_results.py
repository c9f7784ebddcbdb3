"""Curves, targets, table, picture and JSON of made-up runs."""

import csv
import json
from dataclasses import replace

import cv2
import pytest

from fastdetr_mmdet.convergence.results import (
    Curve,
    Point,
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
REFERENCE = dict(title="COCO", source="somewhere", series={"theirs": [(12.0, 0.33), (50.0, 0.4)]})
FAST = curve("fast", 0, 0.2, 0.3, 0.4, cpu=3.0), curve("fast", 1, 0.1, 0.4, 0.5, cpu=3.0)


def test_mean_spread_and_targets():
    """Targets are half of the best mean AP, and the first config's best."""
    slow, fast = summarise([SLOW[0], FAST[0], SLOW[1], FAST[1]])
    assert (slow.name, slow.seeds, slow.epochs) == ("slow", (0, 1), (2, 4, 6))
    assert fast.mean == pytest.approx((0.15, 0.35, 0.45))
    assert (fast.low, fast.high) == ((0.1, 0.3, 0.4), (0.2, 0.4, 0.5))
    assert (fast.minutes_per_epoch, fast.cpu_minutes_per_epoch) == (2.0, 3.0)
    assert [reached.target for reached in slow.reached] == [0.15, 0.225]
    assert summarise([curve("dead", 0, 0.0, 0.0)])[0].reached == ()  # no target of 0


def test_reached_and_table():
    summaries = summarise([*SLOW, *FAST], targets=[0.2, 0.4, 0.6])
    slow, fast = (summary.reached for summary in summaries)
    assert [(each.runs, each.of) for each in fast] == [(2, 2), (2, 2), (0, 2)]
    assert (fast[0].epochs, fast[0].minutes, fast[0].cpu_minutes) == (3.0, 6.0, 9.0)  # 2 and 4
    assert (fast[1].epochs, fast[2].epochs) == (5.0, None)
    assert (slow[0].runs, slow[0].of, slow[0].epochs) == (1, 2, 6.0)
    head, _, slow_row, fast_row = markdown_table(summaries).splitlines()
    assert "AP 0.200" in head and "AP 0.400" in head
    assert "6 / 6.0 / 12.0 (only 1 of 2 seeds)" in slow_row
    assert "0.150 (0.100 to 0.200)" in slow_row
    assert "3 / 9.0 / 6.0" in fast_row
    assert [row.count("not reached") for row in (slow_row, fast_row)] == [2, 1]


def test_a_run_that_ended_early_does_not_shorten_the_others():
    """The mean leaves out only epochs that not all seeds have."""
    half = Curve("fast", 1, 1000, FAST[1].points[:2], "gone")
    (fast,) = summarise([FAST[0], half], targets=[0.4])
    assert fast.epochs == (2, 4)
    assert (fast.reached[0].runs, fast.reached[0].epochs) == (2, 5.0)
    table = markdown_table(summarise([*SLOW, FAST[0], half]))
    assert table.count("epoch 4 only") == 1 and "0.350 (0.300 to 0.400), epoch 4 only" in table


def test_curve_of_a_run(tmp_path):
    """Minutes add up over all epochs, also those without validation; COCO's -1 is not an AP."""
    run = Run("fast", 0, 3, tmp_path)
    run.work_dir.mkdir(parents=True)
    common = dict(train_seconds=60, train_cpu_seconds=30)
    epochs = [dict(epoch=number, **common) for number in (1, 2, 3)]
    epochs[1] |= dict(val_seconds=600, metrics={"coco/bbox_mAP": -1.0, "coco/bbox_mAP_50": 0.5})
    progress = dict(parameters=7, trained_parameters=7, epochs=epochs)
    (run.work_dir / "progress.json").write_text(json.dumps(progress))
    points = (Point(2, 0.0, 0.5, 2.0, 1.0),)
    assert read_curve(run) == Curve("fast", 0, 7, points, trained=3, epochs=3)
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
    table, picture, data, points = write_results(tmp_path, curves, {"epochs": 6})
    plain = cv2.imread(str(picture))
    write_results(tmp_path, curves, {"epochs": 6}, references=[REFERENCE])
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
    assert [*rows[-1].items()] == [
        ("config", "fast"), ("seed", "1"), ("epoch", "4"), ("ap", "0.4"), ("ap50", "0.8"),
        ("minutes", "8.0"), ("cpu_minutes", "12.0"),
    ]  # fmt: skip


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
    by_epoch, by_time, other = charts(summarise(curves, [0.2, 0.9]), curves, [REFERENCE])
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
    content = dict(title="COCO", source="log", series={"a": [(1.0, 0.2), (2.0, 0.3)]})
    path.write_text(json.dumps(content))
    assert read_reference(path) == content
    for text, word in (
        (path.read_text().replace("0.2", "20"), "a has AP 20"),
        ('{"title": "COCO"}', r"reference\.json"),
        (None, r"reference\.json"),
    ):
        path.write_text(text) if text else path.unlink()
        with pytest.raises(UsageError, match=word):
            read_reference(path)
