"""Long trainings do not leak: tests/long_run.py, and quick checks."""

import gc
import math

import psutil
import pytest
import torch
from long_run import LIMIT, Row, judge, train
from mmengine.hooks import Hook

PASS = 4  # iterations


class CountHook(Hook):
    """Counts the tensors and open files after the first iteration of every pass."""

    def __init__(self) -> None:
        self.tensors: list[int] = []
        self.files: list[int] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if batch_idx == 0:
            del outputs, data_batch
            gc.collect()
            self.tensors.append(sum(issubclass(type(x), torch.Tensor) for x in gc.get_objects()))
            self.files.append(psutil.Process().num_fds())


class LeakHook(Hook):
    """Leaks batches, as a hook, a metric or a log might."""

    def __init__(self) -> None:
        self.kept: list = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.kept.append(data_batch)


@pytest.mark.slow
@pytest.mark.parametrize("leak", [False, True])
def test_what_an_iteration_makes_is_gone_after_it(tmp_path, leak):
    """Over passes with validations and checkpoints; a leak is detected."""
    count = CountHook()
    train(tmp_path, 5 * PASS + 1, 0, 8 * PASS, "few", count, *[LeakHook()] * leak, val=8)
    # From the second validation on, after one-time allocations.
    assert len(count.tensors) == 6
    assert (count.tensors[-1] > count.tensors[4]) is leak, count.tensors
    assert count.files[-1] == count.files[4]


def _rows(**slopes: float) -> list[Row]:
    """Measurements of 1,500 iterations with given growth in KiB per iteration."""
    start = dict(resident=600.0, in_use=170.0, workers=70.0, files=40)
    return [
        Row(done, **{k: v + slopes.get(k, 0.0) * done / 1024 for k, v in start.items()})
        for done in range(100, 1600, 100)
    ]


def test_verdict():
    assert judge(_rows()).startswith("flat")
    assert judge(_rows(in_use=math.nan)).startswith("flat")  # unknown for some C libraries
    for name in ("resident", "in_use", "workers"):
        assert judge(_rows(**{name: 0.9 * LIMIT})).startswith("flat")
        assert judge(_rows(**{name: 1.1 * LIMIT})).startswith("growing")
    assert judge([row._replace(files=row.iteration // 100) for row in _rows()]).startswith(
        "growing"
    )


@pytest.mark.slow
def test_two_thousand_iterations(tmp_path):
    """With worker processes, and a validation and a checkpoint after every second pass."""
    verdict = judge(train(tmp_path, 2000, 2, 1024, "few"))
    assert verdict.startswith("flat"), verdict
