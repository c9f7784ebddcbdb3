"""Resuming starts from the newest whole checkpoint, and says so when that is not the named one."""

import logging
import os
import shutil
from pathlib import Path

import pytest
import torch

from fastdetr_mmdet.engine.hooks.checkpoint_choice import check_named, choose_checkpoint

TEMPLATE = "epoch_{}.pth"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Of a run that saved three checkpoints, a minute apart."""
    for epoch in (1, 2, 3):
        save(tmp_path, epoch)
    point(tmp_path, tmp_path / "epoch_3.pth")
    return tmp_path


def save(folder: Path, epoch: int, time: str = "20260101_1200", wrote: int | None = None) -> Path:
    """A checkpoint; times also of the file, in minutes."""
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
    """The name in last_checkpoint afterwards, and the warnings."""
    pointer, logger = folder / "last_checkpoint", logging.getLogger("test")
    with caplog.at_level(logging.INFO):
        choose_checkpoint(pointer, folder, TEMPLATE, logger, own_log)
    text = Path(pointer.read_text()).name if pointer.exists() else None
    return text, [record.getMessage() for record in caplog.records]


def test_a_whole_one_is_left_alone(folder, caplog):
    assert choose(folder, caplog) == ("epoch_3.pth", [])
    save(folder, 1, wrote=0)
    point(folder, folder / "epoch_2.pth", wrote=9)  # set back by hand
    assert choose(folder, caplog) == ("epoch_2.pth", [])


def test_a_broken_one(folder, caplog):
    cut(folder / "epoch_3.pth")
    name, (warning,) = choose(folder, caplog)
    assert name == "epoch_2.pth"
    pointer = folder / "last_checkpoint"
    assert warning == (
        f"{pointer} names {folder / 'epoch_3.pth'}, which is cut short: the list of contents at "
        f"its end is missing; resuming from {folder / 'epoch_2.pth'} instead."
    )
    caplog.clear()
    assert choose(folder, caplog) == ("epoch_2.pth", [])


def test_two_broken_ones(folder, caplog):
    cut(folder / "epoch_3.pth")
    (folder / "epoch_2.pth").write_bytes(b"")
    name, warnings = choose(folder, caplog)
    assert name == "epoch_1.pth"
    assert warnings[0] == f"{folder / 'epoch_2.pth'} is empty; it is not used."
    assert len(warnings) == 2


def test_not_one_of_a_former_run(folder, caplog):
    """Which lay in the folder before and was trained for longer."""
    save(folder, 50, time="20251231_1200", wrote=0)
    cut(folder / "epoch_3.pth")
    assert choose(folder, caplog)[0] == "epoch_2.pth"


def test_a_missing_one(folder, caplog):
    (folder / "epoch_3.pth").unlink()
    name, (warning,) = choose(folder, caplog)
    assert name == "epoch_2.pth"
    assert f"names {folder / 'epoch_3.pth'}, which does not exist; resuming from" in warning


@pytest.mark.parametrize("text", [None, "", "\n"])
def test_nothing_is_named(folder, caplog, text):
    """Killed before the first last_checkpoint, or by a power cut in mmengine's own."""
    point(folder, text)
    if text is None:
        (folder / "last_checkpoint").unlink()
    name, (warning,) = choose(folder, caplog)
    assert name == "epoch_3.pth"
    assert "last_checkpoint is empty or missing; resuming from" in warning


def test_no_whole_one(folder, caplog):
    for epoch in (1, 2, 3):
        cut(folder / f"epoch_{epoch}.pth")
    name, warnings = choose(folder, caplog)
    assert name is None
    assert len(warnings) == 3
    assert warnings[-1].startswith("There is nothing to resume from: ")
    assert warnings[-1].endswith(
        f"{folder} has no whole checkpoint named epoch_*.pth. Training starts from the beginning."
    )


def test_an_empty_folder(tmp_path, caplog):
    name, (warning,) = choose(tmp_path, caplog)
    assert name is None
    assert "Training starts from the beginning" in warning


def test_logs_of_an_earlier_training(tmp_path, caplog):
    """The last one that took a step is named, and what to do."""
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
    assert warning.startswith("There is nothing to resume from: ")
    assert f"But {log} is the log of an earlier training, which had come to iteration 50." in (
        warning
    )
    assert "Training starts from the beginning all the same." in warning
    assert f"put the last one back into {tmp_path}, or give its path: --resume FILE." in warning

    caplog.clear()
    log.unlink()
    assert "come to epoch 12." in choose(tmp_path, caplog, own)[1][0]
    caplog.clear()
    (tmp_path / "20260101_120000" / "20260101_120000.log").unlink()
    (warning,) = choose(tmp_path, caplog, own)[1]
    assert warning.endswith("epoch_*.pth. Training starts from the beginning.")


def test_a_best_checkpoint_is_none_to_resume_from(tmp_path, caplog):
    """It has no optimizer."""
    save(tmp_path, 1).rename(tmp_path / "best_coco_epoch_1.pth")
    assert choose(tmp_path, caplog)[0] is None


def test_a_copied_folder(folder, tmp_path_factory, caplog):
    """Its own file is used: the other one may be removed any time."""
    copy = tmp_path_factory.mktemp("copies") / "copy"
    shutil.copytree(folder, copy)
    name, (warning,) = choose(copy, caplog)
    assert name == "epoch_3.pth"
    assert (copy / "last_checkpoint").read_text() == str(copy / "epoch_3.pth")
    assert f"named {folder / 'epoch_3.pth'}; resuming from {copy / 'epoch_3.pth'}" in warning


def test_another_way_to_write_the_path(folder, tmp_path_factory, caplog):
    link = tmp_path_factory.mktemp("links") / "link"
    link.symlink_to(folder)
    assert choose(link, caplog) == ("epoch_3.pth", [])


def test_a_checkpoint_elsewhere(folder, tmp_path_factory, caplog):
    """As when out_dir was another one."""
    empty = tmp_path_factory.mktemp("empty")
    point(empty, folder / "epoch_3.pth")
    assert choose(empty, caplog) == ("epoch_3.pth", [])


def test_a_moved_folder(folder, caplog):
    point(folder, "/former/place/epoch_2.pth")
    name, (warning,) = choose(folder, caplog)
    assert name == "epoch_2.pth"
    assert "named /former/place/epoch_2.pth; resuming from" in warning


def test_a_newer_one_whose_run_was_killed_before_it_was_named(folder, caplog):
    save(folder, 4, wrote=4)
    name, (warning,) = choose(folder, caplog)
    assert name == "epoch_4.pth"
    assert f"named {folder / 'epoch_3.pth'}; resuming from {folder / 'epoch_4.pth'}" in warning


def test_a_newer_one_that_is_broken(folder, caplog):
    cut(save(folder, 4, wrote=4))
    assert choose(folder, caplog) == ("epoch_3.pth", [])


def test_a_copied_one_of_a_former_run(folder, caplog):
    """Copying gave it a new time; the one within tells."""
    save(folder, 50, time="20251231_1200", wrote=9)
    assert choose(folder, caplog) == ("epoch_3.pth", [])


def test_others_are_left_to_mmengine(folder, caplog):
    deepspeed = folder / "epoch_4.pth"
    deepspeed.mkdir()
    for text in (deepspeed, "s3://bucket/epoch_1.pth"):
        point(folder, text)
        assert choose(folder, caplog)[1] == []
        assert (folder / "last_checkpoint").read_text() == str(text)


def test_a_chosen_file(folder, tmp_path):
    check_named(str(folder / "epoch_1.pth"))
    check_named("https://example.org/weights.pth")
    check_named("torchvision://resnet50")
    cut(folder / "epoch_1.pth")
    with pytest.raises(
        ValueError, match=r"epoch_1.pth is cut short.* give --resume without a path"
    ):
        check_named(str(folder / "epoch_1.pth"))
    with pytest.raises(ValueError, match=r"none.pth does not exist\. Name another"):
        check_named(str(folder / "none.pth"))
