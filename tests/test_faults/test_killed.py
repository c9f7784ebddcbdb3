"""A run that is killed, wherever that is, and resumed ends as if it had not been killed."""

import random

import pytest
from comparing import check_last_checkpoint, check_same

from fastdetr_mmdet.hooks.checkpoint_files import UNFINISHED

SLOW_POINTS = 24  # of which every second is a moment, and the others are in writing files


def kill_and_resume(server, config, whole, work_dir, **how):
    killed = server.run(config, work_dir, **how)
    assert killed.killed, killed.output[-4000:]
    check_last_checkpoint(work_dir)
    resumed = server.run(config, work_dir, resume=True)
    assert resumed.code == 0, resumed.output[-4000:]
    check_same(work_dir, whole)


def seconds(whole) -> float:
    return float((whole / "seconds.txt").read_text())


def steps(whole) -> list[str]:
    """What the whole run did to files."""
    return (whole / "steps.txt").read_text().splitlines()


@pytest.mark.smoke
def test_killed_with_half_a_checkpoint_written(server, config, whole, tmp_path):
    point = steps(whole).index(f"write the second half of epoch_2.pth{UNFINISHED}")
    kill_and_resume(server, config, whole, tmp_path, faults=dict(kill_at=point))


def test_killed_before_the_checkpoint_is_named(server, config, whole, tmp_path):
    """And before the one before it, the only one that is named, is removed."""
    point = steps(whole).index(f"rename epoch_2.pth{UNFINISHED}")
    assert steps(whole)[point + 2] == f"open last_checkpoint{UNFINISHED}"
    kill_and_resume(server, config, whole, tmp_path, faults=dict(kill_at=point + 2))


def test_killed_at_a_moment(server, config, whole, tmp_path):
    moment = random.Random(0).uniform(0.2, 0.8) * seconds(whole)
    kill_and_resume(server, config, whole, tmp_path, kill_after=moment)


@pytest.mark.slow
@pytest.mark.parametrize("point", range(SLOW_POINTS))
def test_killed_at_random(server, config, whole, tmp_path, point):
    choice = random.Random(point)
    if point % 2:
        how = dict(kill_after=choice.uniform(0, seconds(whole)))
    else:
        how = dict(faults=dict(kill_at=choice.randrange(len(steps(whole)))))
    kill_and_resume(server, config, whole, tmp_path, **how)


@pytest.mark.slow
def test_killed_again_and_again(server, config, whole, tmp_path):
    """Until it comes through: mostly it is killed before it can save anything."""
    choice = random.Random(1)
    kills = 0
    while True:
        moment = choice.uniform(0.3, 1.1) * seconds(whole)
        if server.run(config, tmp_path, kill_after=moment, resume=True).code == 0:
            break
        check_last_checkpoint(tmp_path)
        kills += 1
    print(f"killed {kills} times")
    check_same(tmp_path, whole)
