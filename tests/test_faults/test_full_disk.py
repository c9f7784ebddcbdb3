"""A full disk ends training with a clear error, and training can resume."""

import pytest
from comparing import check_last_checkpoint, check_same, last_checkpoint

from fastdetr_mmdet.utils.files import UNFINISHED

# 0 and 1: epoch 1, best of epoch 1
SECOND_EPOCH = 2


def check_ended(result, work_dir, sentence: str) -> None:
    """Check the error at the end of the output; checkpoints are intact, without other files."""
    assert result.code == 1
    last = result.output.strip().splitlines()[-1]
    assert last.startswith("RuntimeError: ")
    assert sentence in last
    assert last.endswith("continue with --resume.")
    check_last_checkpoint(work_dir)
    assert not list(work_dir.glob(f"*{UNFINISHED}"))


def test_full_while_a_checkpoint_is_written(server, config, whole, tmp_path):
    result = server.train(config, tmp_path, faults=dict(full_at=SECOND_EPOCH))
    first = tmp_path / "epoch_1.pth"
    check_ended(result, tmp_path, f"; the one before it, {first}, is intact. Training has ended")
    sentence = f"{tmp_path / 'epoch_2.pth'} could not be written (No space left on device; "
    assert sentence in result.output
    assert last_checkpoint(tmp_path) == first
    assert server.train(config, tmp_path, resume=True).code == 0
    check_same(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("file", range(4))
def test_full_at_any_checkpoint(server, config, whole, tmp_path, file):
    """Including the first and the best."""
    result = server.train(config, tmp_path, faults=dict(full_at=file))
    good = "no checkpoint was saved before" if file == 0 else "is intact. Training has ended"
    check_ended(result, tmp_path, good)
    assert server.train(config, tmp_path, resume=True).code == 0
    check_same(tmp_path, whole)


@pytest.mark.slow
def test_a_limit_of_the_kernel(server, config, whole, tmp_path):
    """A limit of file sizes, as by `ulimit -f`."""
    result = server.train(config, tmp_path, faults=dict(limit_at=SECOND_EPOCH))
    check_ended(result, tmp_path, "epoch_2.pth could not be written (File too large; ")
    assert last_checkpoint(tmp_path).name == "epoch_1.pth"
    assert server.train(config, tmp_path, resume=True).code == 0
    check_same(tmp_path, whole)


@pytest.mark.slow
def test_a_disk_that_is_too_small(disk, config, whole):
    """With more room, training resumes as if nothing had happened."""
    result = disk.train(config, disk.folder)
    work_dir = disk.seen(disk.folder)
    check_ended(result, work_dir, "could not be written (No space left on device; ")
    assert last_checkpoint(work_dir).name == "epoch_1.pth"
    again = disk.train(config, disk.folder, resume=True)
    assert again.code == 1  # trains, and ends at the same place
    check_ended(again, work_dir, "could not be written (No space left on device; ")
    disk.shell(f"mount -o remount,size=20m {disk.folder}")
    assert disk.train(config, disk.folder, resume=True).code == 0
    check_same(work_dir, whole)


@pytest.mark.slow
def test_a_disk_that_others_fill(disk, config, whole):
    """Then writing the log fails."""
    disk.shell(f"mount -o remount,size=20m {disk.folder}")
    steps = (whole / "steps.txt").read_text().splitlines()
    fill_at = steps.index(f"open epoch_2.pth{UNFINISHED}") - 1
    result = disk.train(config, disk.folder, faults=dict(fill_at=fill_at))
    work_dir = disk.seen(disk.folder)
    check_ended(result, work_dir, f"No space left on device; 0 B free in {disk.folder}). Its ")
    assert last_checkpoint(work_dir).name == "epoch_1.pth"

    refused = disk.train(config, disk.folder, resume=True)
    assert refused.code == 1
    assert "No space left on device" in refused.output.strip().splitlines()[-1]
    check_last_checkpoint(work_dir)

    disk.shell(f"rm {disk.folder}/filler")
    assert disk.train(config, disk.folder, resume=True).code == 0
    check_same(work_dir, whole)
