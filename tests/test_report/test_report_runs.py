"""Folders that are runs, their names, and their checkpoints."""

import pytest
import torch

from fastdetr_mmdet.report.page import config_differences
from fastdetr_mmdet.report.runs import find_checkpoint, find_work_dirs, read_runs
from fastdetr_mmdet.utils.cli import UsageError, UserError


def save(path):
    torch.save(dict(state_dict={}), path)
    return path


def test_checkpoint_of_a_run(tmp_path):
    """Damaged files are skipped."""
    with pytest.raises(UserError):
        find_checkpoint(tmp_path)
    for epoch in (2, 10, 9):
        whole = save(tmp_path / f"epoch_{epoch}.pth").read_bytes()
    assert find_checkpoint(tmp_path).name == "epoch_10.pth"
    # moved here from elsewhere
    (tmp_path / "last_checkpoint").write_text("/not/here/epoch_9.pth")
    assert find_checkpoint(tmp_path).name == "epoch_9.pth"
    best = save(tmp_path / "best_coco_bbox_mAP_epoch_2.pth")
    assert find_checkpoint(tmp_path) == best
    assert find_checkpoint(tmp_path, "last").name == "epoch_9.pth"

    best.write_bytes(whole[: len(whole) // 2])
    (tmp_path / "epoch_9.pth").write_bytes(b"")
    assert find_checkpoint(tmp_path).name == "epoch_10.pth"
    for epoch in (2, 10):
        (tmp_path / f"epoch_{epoch}.pth").write_bytes(b"")
    with pytest.raises(UserError, match=r"(?s)best_.*epoch_9\.pth.*epoch_10\.pth.*epoch_2\.pth"):
        find_checkpoint(tmp_path)


def test_work_dirs_below_a_folder(tmp_path):
    """As from fastdetr_mmdet.convergence, or from a user's sweep."""
    for name in ("smca/seed0", "smca/seed1", "detr/seed0"):
        (tmp_path / name / "20260501_120000" / "vis_data").mkdir(parents=True)
    (tmp_path / "convergence.json").write_text("{}")
    found = find_work_dirs([tmp_path, tmp_path / "detr" / "seed0"])
    names = ["detr/seed0", "smca/seed0", "smca/seed1"]
    assert [path.relative_to(tmp_path).as_posix() for path in found] == names
    assert [(run.number, run.name) for run in read_runs(found)] == list(enumerate(names))
    assert find_work_dirs([tmp_path / "smca" / "seed1"]) == [tmp_path / "smca" / "seed1"]


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["fast-detr_r18_a", "fast-detr_r50_a"], ["r18_a", "r50_a"]),
        (["sweep_a", "sweep_b", "sweep_c-d"], ["a", "b", "c-d"]),
        (["seed_0", "seed_1"], ["seed_0", "seed_1"]),  # a number is not a name
        (["lr-old", "lr-1e-4"], ["lr-old", "lr-1e-4"]),
        (["x-run_1", "x-run_2"], ["run_1", "run_2"]),
        (["demo", "demo2"], ["demo", "demo2"]),
        (["demo_a"], ["demo_a"]),
    ],
)
def test_names_leave_out_the_common_prefix(tmp_path, names, shown):
    paths = [tmp_path / name for name in names]
    for path in paths:
        (path / "20260501_120000").mkdir(parents=True)
    runs = read_runs(paths)
    assert [run.name for run in runs] == shown and [run.work_dir for run in runs] == paths


def test_folders_without_a_run(tmp_path):
    empty, other, begun = (tmp_path / name for name in ("empty", "other", "begun"))
    for path in (empty, other, begun / "20260501_120000"):
        path.mkdir(parents=True)
    (other / "notes.txt").write_text("")
    with pytest.raises(UsageError, match=f"{empty}, {other}"):
        read_runs([empty, other])
    first, second = read_runs([begun, empty])
    assert not first.is_empty and second.is_empty and "--work-dir" in second.notes[0]
    save(empty / "epoch_1.pth")  # a checkpoint makes it a run
    assert not read_runs([empty])[0].is_empty
    for path in (tmp_path / "none", other / "notes.txt"):
        with pytest.raises(UsageError, match=path.name):
            find_work_dirs([path])


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
    assert [len(value) for value in values] == [160, 160]
    # keys that differ alike share a row, but not those that are equal by chance
    a, b = (dict(max_epochs=n, train_cfg=dict(max_epochs=n), num_outs=n) for n in (1, 2))
    keys = ["max_epochs", "train_cfg.max_epochs"]
    assert config_differences([a, b]) == [(keys, ["1", "2"]), (["num_outs"], ["1", "2"])]
