"""Parts of the page by themselves: escaping, charts, config differences, choice of checkpoints."""

import re
import xml.etree.ElementTree as ElementTree

import cv2
import numpy as np
import pytest
import torch

from fastdetr_mmdet.report.attention import contact_sheets
from fastdetr_mmdet.report.chart import HEIGHT, WIDTH, Line, line_chart, shorten
from fastdetr_mmdet.report.checkpoint_of_run import NoCheckpointError, find_checkpoint
from fastdetr_mmdet.report.config_diff import config_differences
from fastdetr_mmdet.report.error_section import _surroundings
from fastdetr_mmdet.report.markup import Html, el, figure, join, table
from fastdetr_mmdet.report.pictures import Box, photo, read_image
from fastdetr_mmdet.report.run import find_work_dirs, read_runs

EVIL = "<script>alert('x')</script>\"&"


def test_text_is_escaped_wherever_it_stands():
    for page in (
        el("p", EVIL),
        el("p", [EVIL, [EVIL]]),
        el("p", title=EVIL),
        join([EVIL]),
        table([EVIL], [[EVIL, EVIL]]),
        line_chart([Line(EVIL, 0, [(1, 2)]), Line("b", 1, [(1, 3)])], EVIL, EVIL),
    ):
        assert "<script" not in page and '"&"' not in page
        assert "script&gt;" in page or "…" in page


def test_markup():
    assert el("p", Html("<b>"), None, "a", cls="x", hidden=False) == '<p class="x"><b>a</p>'
    assert el("meta", name="a", http_equiv="b") == '<meta name="a" http-equiv="b"/>'
    assert el("p", "a\x00b\ud800") == "<p>a�b?</p>"
    cell = el("td", "1")
    assert table(["a", "b"], [["x", cell]]).count("<td") == 1
    assert figure(None) == "—" and figure(0.12349) == "0.123"


def numbers(chart, attribute):
    return [float(value) for value in re.findall(rf' {attribute}="([-\d.]+)"', chart)]


def test_chart_shows_what_it_is_given():
    rising = Line("rising", 0, [(0, 0.0), (5, 0.5), (10, 1.0)])
    flat = Line("flat", 1, [(0, 0.25), (4, 0.25)])
    chart = line_chart([rising, flat], "epochs", "AP", from_zero=True)
    root = ElementTree.fromstring(chart)
    circles = [(float(c.get("cx")), float(c.get("cy"))) for c in root.iter("circle")]
    assert len(circles) == 5
    (x0, y0), (x1, y1), (x2, y2) = circles[:3]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert circles[3][1] == pytest.approx(circles[4][1])
    assert circles[3][1] == pytest.approx(y0 - (y0 - y2) / 4, abs=0.2)
    names = [t.text or "".join(t.itertext()) for t in root.iter("text")]
    assert any("rising" in name for name in names) and any("flat" in name for name in names)


@pytest.mark.parametrize(
    "values",
    [[0.0], [5.0], [0.0, 0.0], [1e-9, 2e-9], [1e9, 3e9], [-5.0, 5.0], [1.0, 1.0 + 1e-9]],
    ids=str,
)
@pytest.mark.parametrize("log", [False, True])
def test_chart_of_odd_values(values, log):
    lines = [Line(f"run {n}", n, list(enumerate(values))) for n in range(9)]
    chart = line_chart(lines, "x", "y", log_y=log)
    ElementTree.fromstring(chart)
    for attribute, limit in (("cx", WIDTH), ("cy", HEIGHT), ("y", HEIGHT), ("x", WIDTH)):
        assert all(-1 <= value <= limit for value in numbers(chart, attribute))


def test_names_at_lines_do_not_overlap():
    lines = [Line(f"run {n}", n, [(0, 1.0), (1, 1.0 + n / 1000)]) for n in range(6)]
    root = ElementTree.fromstring(line_chart(lines, "x", "y", from_zero=True))
    places = [float(t.get("y")) for t in root.iter("text") if "name" in t.get("class")]
    gaps = np.diff(sorted(places))
    assert len(places) == 6 and gaps.min() >= 13


def test_figures_at_the_axis_are_not_cut_off():
    """12 px digits are at most 7.6 px wide."""
    for top in (0.05, 0.02, 40_000.0, 1e-7):
        line = Line("a", 0, [(0, 0.0), (3, top)])
        root = ElementTree.fromstring(line_chart([line], "x", "y", from_zero=True))
        ticks = [t for t in root.iter("text") if t.get("class") == "tick y"]
        assert max(len(t.text) for t in ticks) >= 4
        assert all(float(t.get("x")) >= 7.6 * len(t.text) for t in ticks)


def test_empty_chart():
    assert "Nothing was logged" in line_chart([Line("a", 0, [])], "x", "y")


def test_shorten():
    assert shorten("short") == "short"
    assert len(shorten("a" * 40 + "z")) == 14 and shorten("a" * 40 + "z").endswith("z")


def test_config_differences():
    a = dict(lr=0.1, same=1, hooks=[dict(type="A", n=1)], scale=(1, 2), work_dir="a", x={})
    b = dict(lr=0.2, same=1, hooks=[dict(type="A", n=2)], scale=[1, 2], work_dir="b", only=None)
    assert config_differences([a, b]) == [
        (["lr"], ["0.1", "0.2"]),
        (["hooks.0.n"], ["1", "2"]),
        (["x"], ["{}", "—"]),
        (["only"], ["—", "None"]),
    ]
    assert config_differences([a, dict(a)]) == []
    ((_, values),) = config_differences([dict(a="b" * 1000), dict(a="b" * 999 + "c")])
    assert [len(value) for value in values] == [160, 160] and values[0].endswith("b…")


def test_keys_that_differ_alike_share_a_row():
    a, b = (dict(max_epochs=n, train_cfg=dict(max_epochs=n), lr=n / 10) for n in (1, 2))
    assert config_differences([a, b])[0] == (["max_epochs", "train_cfg.max_epochs"], ["1", "2"])
    a, b = (dict(num_outs=n, interval=n) for n in (1, 2))  # alike by chance
    assert config_differences([a, b]) == [(["num_outs"], ["1", "2"]), (["interval"], ["1", "2"])]


def save(path):
    torch.save(dict(state_dict={}), path)
    return path


def test_checkpoint_of_a_run(tmp_path):
    with pytest.raises(NoCheckpointError, match="There is no checkpoint"):
        find_checkpoint(tmp_path)
    for epoch in (2, 10, 9):
        save(tmp_path / f"epoch_{epoch}.pth")
    assert find_checkpoint(tmp_path).name == "epoch_10.pth"
    # moved here from elsewhere
    (tmp_path / "last_checkpoint").write_text("/not/here/epoch_9.pth")
    assert find_checkpoint(tmp_path).name == "epoch_9.pth"
    save(tmp_path / "best_coco_bbox_mAP_epoch_2.pth")
    assert find_checkpoint(tmp_path).name == "best_coco_bbox_mAP_epoch_2.pth"
    assert find_checkpoint(tmp_path, "last").name == "epoch_9.pth"


def test_broken_checkpoints_are_passed_over(tmp_path):
    save(tmp_path / "epoch_1.pth")
    whole = save(tmp_path / "epoch_2.pth").read_bytes()
    (tmp_path / "epoch_2.pth").write_bytes(whole[: len(whole) // 2])
    assert find_checkpoint(tmp_path).name == "epoch_1.pth"
    (tmp_path / "epoch_1.pth").write_bytes(b"")
    with pytest.raises(NoCheckpointError, match=r"epoch_2.pth is cut short.*epoch_1.pth is empty"):
        find_checkpoint(tmp_path)


def test_work_dirs_below_a_folder(tmp_path):
    """As fastdetr_mmdet.convergence lays them out, or a sweep of one's own."""
    for name in ("smca/seed0", "smca/seed1", "detr/seed0"):
        (tmp_path / name / "20260501_120000" / "vis_data").mkdir(parents=True)
    (tmp_path / "convergence.json").write_text("{}")
    found = find_work_dirs([tmp_path, tmp_path / "detr" / "seed0"])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "detr/seed0",
        "smca/seed0",
        "smca/seed1",
    ]
    assert [run.name for run in read_runs(found)] == ["detr/seed0", "smca/seed0", "smca/seed1"]
    assert find_work_dirs([tmp_path / "smca" / "seed1"]) == [tmp_path / "smca" / "seed1"]


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["fast-detr_r18_a", "fast-detr_r50_a"], ["r18_a", "r50_a"]),
        (["sweep_a", "sweep_b", "sweep_c-d"], ["a", "b", "c-d"]),
        (["seed_0", "seed_1"], ["seed_0", "seed_1"]),  # a number is no name
        (["lr-old", "lr-1e-4"], ["lr-old", "lr-1e-4"]),
        (["x-run_1", "x-run_2"], ["run_1", "run_2"]),
        (["demo", "demo_long"], ["demo", "demo_long"]),
        (["demo", "demo2"], ["demo", "demo2"]),
        (["demo_a"], ["demo_a"]),
    ],
)
def test_names_leave_out_what_all_share(tmp_path, names, shown):
    paths = [tmp_path / name / "20260501_120000" for name in names]
    for path in paths:
        path.mkdir(parents=True)
    runs = read_runs([path.parent for path in paths])
    assert [run.name for run in runs] == shown
    assert [run.work_dir for run in runs] == [path.parent for path in paths]


def test_folders_that_hold_no_run(tmp_path):
    empty, other, begun = (tmp_path / name for name in ("empty", "other", "begun"))
    for path in (empty, other, begun / "20260501_120000"):
        path.mkdir(parents=True)
    (other / "notes.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=r"empty holds no run: no log, config or check"):
        read_runs([empty])
    with pytest.raises(FileNotFoundError, match=r"empty, .*other hold no runs.* --work-dir named"):
        read_runs([empty, other])
    first, second = read_runs([begun, empty])
    assert "This folder holds no run" not in " ".join(first.notes) and not first.is_nothing
    assert second.notes[0].startswith("This folder holds no run. Give the folder that --work-dir")
    save(empty / "epoch_1.pth")  # a checkpoint is something
    assert not read_runs([empty])[0].is_nothing


def test_no_work_dir(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none does not exist\. Give the folder that"):
        find_work_dirs([tmp_path / "none"])
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match="is a file, not a work directory"):
        find_work_dirs([tmp_path / "file"])


def test_photo_of_a_region():
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, 100:] = 255
    shot = photo(image, (90.5, -10, 150, 40), longest=30)
    assert shot.region == (90, 0, 150, 40)
    assert photo(image).region == (0, 0, 200, 100)
    tiny = photo(image, (250, 250, 260, 260))  # outside: still a picture
    assert tiny.region == (199, 99, 200, 100)


def test_a_file_that_is_no_image(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    assert read_image(str(tmp_path / "a.jpg")) is None
    assert read_image(str(tmp_path / "b.jpg")) is None
    cv2.imwrite(str(tmp_path / "c.png"), np.full((4, 6, 3), 7, np.uint8))
    assert read_image(str(tmp_path / "c.png")).shape == (4, 6, 3)


def test_crops_hold_their_boxes():
    for box in ((0, 0, 5, 5), (180, 80, 200, 100), (0, 0, 200, 100), (50, 20, 90, 40)):
        x1, y1, x2, y2 = _surroundings([Box(box, "", "")], (100, 200))
        assert (
            0 <= x1 <= box[0] and 0 <= y1 <= box[1] and box[2] <= x2 <= 200 and box[3] <= y2 <= 100
        )


def test_other_detectors_have_no_attention_to_show():
    sheets, why = contact_sheets(torch.nn.Linear(2, 2), [], 1)
    assert sheets == [] and why.startswith("Linear is not a FastDETR: the viewer cannot see")


def test_runs_beyond_the_number_of_colours_look_different():
    lines = [Line(f"run {n}", n, [(0, 1.0), (1, 2.0)]) for n in range(16)]
    root = ElementTree.fromstring(line_chart(lines, "x", "y"))
    paths = [p for p in root.iter("path") if p.get("class").startswith("line ")]
    looks = {(p.get("class"), p.get("stroke-dasharray")) for p in paths}
    assert len(looks) == len(paths) == 16


def test_long_lines_are_thinned():
    points = [(float(n), float(n % 2)) for n in range(10_000)]
    root = ElementTree.fromstring(line_chart([Line("loss", 0, points)], "x", "y"))
    (path,) = [p for p in root.iter("path") if p.get("class").startswith("line ")]
    assert 300 < path.get("d").count("L") <= 401
    (dot,) = root.iter("circle")
    assert "1 at 9999" in "".join(dot.itertext())  # the last value as it was logged
