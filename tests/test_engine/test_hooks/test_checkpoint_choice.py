"""Resuming uses the newest intact checkpoint, with a warning if it is not the named one."""

import logging
import os
import shutil
from pathlib import Path

import pytest
import torch

from fastdetr_mmdet.engine.hooks.checkpoint_choice import check_named, choose_checkpoint
from fastdetr_mmdet.utils.cli import UserError

TEMPLATE = "epoch_{}.pth"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Folder of a run with three checkpoints, a minute apart."""
    for epoch in (1, 2, 3):
        save(tmp_path, epoch)
    point(tmp_path, tmp_path / "epoch_3.pth")
    return tmp_path


def save(folder: Path, epoch: int, time: str = "20260101_1200", wrote: int | None = None) -> Path:
    """Write a checkpoint, with its time, and the file's time in minutes."""
    path = folder / f"epoch_{epoch}.pth"
    meta = dict(epoch=epoch, iter=100 * epoch, time=f"{time}{epoch:02}")
    torch.save(dict(meta=meta, state_dict=dict(weight=torch.rand(50))), path)
    minute = epoch if wrote is None else wrote
    os.utime(path, (60 * minute, 60 * minute))
    return path


def point(folder: Path, text: object, wrote: float = 3.1) -> None:
    (folder / "last_checkpoint").write_text(str(text))
    os.utime(folder / "last_checkpoint", (60 * wrote, 60 * wrote))


def cut(path: Path) -> None:
    times = path.stat().st_atime, path.stat().st_mtime
    path.write_bytes(path.read_bytes()[:-100])
    os.utime(path, times)


def choose(folder: Path, caplog, own_log: Path | None = None) -> tuple[str | None, list[str]]:
    """Return the resulting name in last_checkpoint, and the warnings."""
    pointer, logger = folder / "last_checkpoint", logging.getLogger("test")
    with caplog.at_level(logging.INFO):
        choose_checkpoint(pointer, folder, TEMPLATE, logger, own_log)
    text = Path(pointer.read_text()).name if pointer.exists() else None
    return text, [record.getMessage() for record in caplog.records]


def set_back_by_hand(folder):
    save(folder, 1, wrote=0)
    point(folder, folder / "epoch_2.pth", wrote=9)


def cut_last(folder, count=1):
    for epoch in range(4 - count, 4):
        cut(folder / f"epoch_{epoch}.pth")


def break_two(folder):
    cut_last(folder)
    (folder / "epoch_2.pth").write_bytes(b"")


def cut_beside_a_former_run(folder):
    """The former run in the folder was trained for longer."""
    save(folder, 50, time="20251231_1200", wrote=0)
    cut_last(folder)


def leave_best_alone(folder):
    """The best checkpoint has no optimizer."""
    for epoch in (1, 2, 3):
        (folder / f"epoch_{epoch}.pth").unlink()
    save(folder, 1).rename(folder / "best_coco_epoch_1.pth")


# Change of the folder, expected checkpoint, and words of each warning.
NO_POINTER = [["last_checkpoint is empty or missing", "epoch_3.pth instead"]]
CHOICES = {
    "whole": (lambda folder: None, "epoch_3.pth", []),
    "set back by hand": (set_back_by_hand, "epoch_2.pth", []),
    "broken": (cut_last, "epoch_2.pth", [["epoch_3.pth, which is cut short", "_2.pth instead"]]),
    "two broken": (break_two, "epoch_1.pth", [["epoch_2.pth is empty"], ["epoch_1.pth instead"]]),
    "broken, and a former run": (cut_beside_a_former_run, "epoch_2.pth", [["epoch_2.pth instead"]]),
    "missing": (
        lambda folder: (folder / "epoch_3.pth").unlink(),
        "epoch_2.pth",
        [["epoch_3.pth, which does not exist", "epoch_2.pth instead"]],
    ),
    # killed before the first last_checkpoint, or a power cut while mmengine wrote it
    "no pointer": (lambda folder: (folder / "last_checkpoint").unlink(), "epoch_3.pth", NO_POINTER),
    "empty pointer": (lambda folder: point(folder, "\n"), "epoch_3.pth", NO_POINTER),
    "none whole": (
        lambda folder: cut_last(folder, 3),
        None,
        [["epoch_2.pth"], ["epoch_1.pth"], ["epoch_*.pth"]],
    ),
    "best alone": (leave_best_alone, None, [["epoch_*.pth", "from the beginning"]]),
    "moved": (
        lambda folder: point(folder, "/former/place/epoch_2.pth"),
        "epoch_2.pth",
        [["named /former/place/epoch_2.pth", "epoch_2.pth instead"]],
    ),
    # the run was killed before naming it
    "newer": (
        lambda folder: save(folder, 4, wrote=4),
        "epoch_4.pth",
        [["epoch_3.pth", "epoch_4.pth instead"]],
    ),
    "newer, broken": (lambda folder: cut(save(folder, 4, wrote=4)), "epoch_3.pth", []),
    # copying changed the file's time, but not the time in it
    "newer, of a former run": (
        lambda folder: save(folder, 50, time="20251231_1200", wrote=9),
        "epoch_3.pth",
        [],
    ),
}


@pytest.mark.parametrize("case", CHOICES)
def test_choice(folder, caplog, case):
    change, expected, words = CHOICES[case]
    change(folder)
    name, warnings = choose(folder, caplog)
    assert name == expected
    assert len(warnings) == len(words)
    for warning, needed in zip(warnings, words, strict=True):
        assert [word in warning for word in needed] == [True] * len(needed), warning
    caplog.clear()
    if expected is not None:  # a second call changes nothing
        assert choose(folder, caplog) == (expected, [])


def test_logs_of_an_earlier_training(tmp_path, caplog):
    """The warning names the last training that took a step, and the fix."""
    for name, line in (
        ("20260101_120000", "Epoch(train)   [1][10/20]  lr: 0.1\nEpoch(train)  [12][20/20]"),
        ("20260102_120000", "Iter(train) [  50/9000]  lr: 0.1\nIter(val) [10/10]"),
        ("20260103_120000", "Epoch(test) [10/10]"),  # only tested
        ("20260104_120000", "Epoch(train)  [1][20/20]"),  # the training that is to resume
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.log").write_text(f"mmengine - INFO - {line}\n")
    own = tmp_path / "20260104_120000"
    log = tmp_path / "20260102_120000" / "20260102_120000.log"
    name, (warning,) = choose(tmp_path, caplog, own)
    assert name is None
    for word in (f"{log} ", "iteration 50", f"{tmp_path}, ", "--resume FILE"):
        assert word in warning

    caplog.clear()
    log.unlink()
    assert "epoch 12" in choose(tmp_path, caplog, own)[1][0]
    caplog.clear()
    (tmp_path / "20260101_120000" / "20260101_120000.log").unlink()
    (warning,) = choose(tmp_path, caplog, own)[1]
    assert "--resume FILE" not in warning


def test_a_copied_folder(folder, tmp_path_factory, caplog):
    """The copy's file is used, since the original may be removed."""
    copy = tmp_path_factory.mktemp("copies") / "copy"
    shutil.copytree(folder, copy)
    name, (warning,) = choose(copy, caplog)
    assert name == "epoch_3.pth"
    assert (copy / "last_checkpoint").read_text() == str(copy / "epoch_3.pth")
    assert f"named {folder / 'epoch_3.pth'}; resuming from {copy / 'epoch_3.pth'}" in warning


def test_the_named_file_stays(folder, tmp_path_factory, caplog):
    """By another way to its folder, or in another folder because out_dir has changed."""
    link = tmp_path_factory.mktemp("links") / "link"
    link.symlink_to(folder)
    empty = tmp_path_factory.mktemp("empty")
    point(empty, folder / "epoch_3.pth")
    for place in (link, empty):
        assert choose(place, caplog) == ("epoch_3.pth", [])


def test_others_are_left_to_mmengine(folder, caplog):
    deepspeed = folder / "epoch_4.pth"
    deepspeed.mkdir()
    for text in (deepspeed, "s3://bucket/epoch_1.pth"):
        point(folder, text)
        assert choose(folder, caplog)[1] == []
        assert (folder / "last_checkpoint").read_text() == str(text)


def test_a_chosen_file(folder, tmp_path):
    intact = str(folder / "epoch_1.pth")
    for path in (intact, "https://example.org/weights.pth", "torchvision://resnet50"):
        check_named(path)
    cut(folder / "epoch_1.pth")
    with pytest.raises(UserError, match=r"epoch_1.pth is cut short.* --resume without"):
        check_named(str(folder / "epoch_1.pth"))
    with pytest.raises(UserError, match=r"none\.pth does not exist"):
        check_named(str(folder / "none.pth"))
