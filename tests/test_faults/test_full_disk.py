"""A full disk ends training with a clear error, and training can resume."""

import re

import pytest
from comparing import check_last_checkpoint, check_same, last_checkpoint

from fastdetr_mmdet.utils.files import UNFINISHED

SECOND = r"epoch_2.pth could not be written \({}; .*epoch_1.pth, is intact. Training has ended"
# Fault, pattern of the error, last checkpoint.
FAULTS = {
    "first": (dict(full_at=0), "no checkpoint was saved before", None),
    "best": (dict(full_at=1), "epoch_1.pth, is intact. Training has ended", "epoch_1.pth"),
    "second": (dict(full_at=2), SECOND.format("No space left on device"), "epoch_1.pth"),
    "second best": (dict(full_at=3), "epoch_2.pth, is intact", "epoch_2.pth"),
    # a limit of the kernel, as by `ulimit -f`
    "limit": (dict(limit_at=2), SECOND.format("File too large"), "epoch_1.pth"),
}


def check_ended(result, work_dir, words, last) -> None:
    """Check the error at the end of the output; checkpoints are intact, without other files."""
    assert result.code == 1
    error = result.output.strip().splitlines()[-1]
    assert error.startswith("RuntimeError: ") and re.search(words, error)
    assert error.endswith("continue with --resume.")
    check_last_checkpoint(work_dir)
    assert not list(work_dir.glob(f"*{UNFINISHED}"))
    if last is not None:
        assert last_checkpoint(work_dir).name == last


@pytest.mark.parametrize(
    "name",
    [name if name == "second" else pytest.param(name, marks=pytest.mark.slow) for name in FAULTS],
)
def test_full_while_a_checkpoint_is_written(server, config, whole, tmp_path, name):
    faults, words, last = FAULTS[name]
    check_ended(server.train(config, tmp_path, faults=faults), tmp_path, words, last)
    assert server.train(config, tmp_path, resume=True).code == 0
    check_same(tmp_path, whole)


@pytest.mark.slow
def test_a_disk_that_is_too_small(disk, config, whole):
    """With more room, training resumes as if nothing had happened."""
    work_dir = disk.seen(disk.folder)
    for resume in (False, True):  # a resumed run trains, and ends at the same place
        result = disk.train(config, disk.folder, resume=resume)
        check_ended(
            result, work_dir, r"could not be written \(No space left on device; ", "epoch_1.pth"
        )
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
    words = rf"No space left on device; 0 B free in {disk.folder}\). Its "
    check_ended(result, work_dir, words, "epoch_1.pth")

    refused = disk.train(config, disk.folder, resume=True)
    assert refused.code == 1
    assert "No space left on device" in refused.output.strip().splitlines()[-1]
    check_last_checkpoint(work_dir)

    disk.shell(f"rm {disk.folder}/filler")
    assert disk.train(config, disk.folder, resume=True).code == 0
    check_same(work_dir, whole)
