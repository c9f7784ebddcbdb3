"""A run that is killed anywhere and resumed equals an uninterrupted run."""

import os
import random
import shutil
import signal
import subprocess
import time
from itertools import pairwise

import pytest
from comparing import check_last_checkpoint, check_same
from support.runs import BIN, ROOT

from fastdetr_mmdet.utils.files import UNFINISHED

SLOW_POINTS = 24  # half are at random times, half in file operations


def kill_and_resume(server, config, whole, work_dir, moment=None, **how):
    killed = server.train(config, work_dir, kill_after=moment, **how)
    while moment is not None and killed.code == 0:
        # The machine was slower when `whole` ran.
        shutil.rmtree(work_dir)
        moment /= 2
        killed = server.train(config, work_dir, kill_after=moment)
    assert killed.killed, killed.output[-4000:]
    check_last_checkpoint(work_dir)
    resumed = server.train(config, work_dir, resume=True)
    assert resumed.code == 0, resumed.output[-4000:]
    check_same(work_dir, whole)


def seconds(whole) -> float:
    return float((whole / "seconds.txt").read_text())


def steps(whole) -> list[str]:
    """File operations of the whole run."""
    return (whole / "steps.txt").read_text().splitlines()


def test_nothing_is_removed_before_what_replaces_it_is_named(whole):
    """The order of the uninterrupted run's file operations."""
    renamed = [line.split()[1] for line in steps(whole) if line.startswith("rename")]
    renamed = [name.removesuffix(UNFINISHED) for name in renamed]
    for epoch in (1, 2, 3):
        # after training; each validation writes a small file once
        assert renamed.count(f"epoch_{epoch}.pth") == 1
    assert renamed.count("last_validation") == 3
    for name, after in pairwise(renamed):
        if name.startswith("epoch"):
            assert after == "last_checkpoint"

    lines = steps(whole)
    removed = [line.split()[1] for line in lines if line.startswith("remove")]
    assert removed[0] == "epoch_1.pth" and "epoch_2.pth" in removed
    for name in removed:
        epoch = int(name.removesuffix(".pth").split("_")[-1])
        successors = [other for other in renamed if other[:4] == name[:4]]
        later = next(o for o in successors if int(o.removesuffix(".pth").split("_")[-1]) > epoch)
        named = lines.index(f"rename {later}{UNFINISHED}")
        pointer = "last_validation" if name.startswith("best") else "last_checkpoint"
        assert f"rename {pointer}{UNFINISHED}" in lines[named : lines.index(f"remove {name}")]


@pytest.mark.smoke
def test_killed_with_half_a_checkpoint_written(server, config, whole, tmp_path):
    point = steps(whole).index(f"write the second half of epoch_2.pth{UNFINISHED}")
    kill_and_resume(server, config, whole, tmp_path, faults=dict(kill_at=point))


def test_killed_before_the_checkpoint_is_named(server, config, whole, tmp_path):
    """Before the former, named checkpoint is removed."""
    point = steps(whole).index(f"rename epoch_2.pth{UNFINISHED}")
    assert steps(whole)[point + 2] == f"open last_checkpoint{UNFINISHED}"
    kill_and_resume(server, config, whole, tmp_path, faults=dict(kill_at=point + 2))


@pytest.mark.slow
@pytest.mark.parametrize("outdated", ["epoch", "best"])
def test_killed_before_an_outdated_one_is_removed(server, config, whole, tmp_path, outdated):
    """Resuming removes the outdated file, without starting from it."""
    point = next(i for i, line in enumerate(steps(whole)) if line.startswith(f"remove {outdated}"))
    kill_and_resume(server, config, whole, tmp_path, faults=dict(kill_at=point))


@pytest.mark.slow
@pytest.mark.parametrize("point", range(SLOW_POINTS))
def test_killed_at_random(server, config, whole, tmp_path, point):
    choice = random.Random(point)
    if point % 2:
        how = dict(moment=choice.uniform(0, seconds(whole)))
    else:
        how = dict(faults=dict(kill_at=choice.randrange(len(steps(whole)))))
    kill_and_resume(server, config, whole, tmp_path, **how)


@pytest.mark.slow
def test_as_a_user_would(config, whole, tmp_path):
    """`mim train` and its child process die at once; the same command resumes."""
    command = [BIN / "mim", "train", "fastdetr_mmdet", config, "--work-dir", tmp_path, "--resume"]
    options = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT.parent)
    options["env"] = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, start_new_session=True, **options)
    while not (tmp_path / "last_checkpoint").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    check_last_checkpoint(tmp_path)
    assert subprocess.run(command, **options).returncode == 0
    check_same(tmp_path, whole)


@pytest.mark.slow
def test_killed_again_and_again(server, config, whole, tmp_path):
    """Until it finishes; mostly it is killed before it saves anything."""
    choice = random.Random(1)
    kills = 0
    while True:
        moment = choice.uniform(0.3, 1.1) * seconds(whole)
        if server.train(config, tmp_path, kill_after=moment, resume=True).code == 0:
            break
        check_last_checkpoint(tmp_path)
        kills += 1
    print(f"killed {kills} times")
    check_same(tmp_path, whole)
