"""Compare the results of two runs."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from fastdetr_mmdet.checkpoints.integrity import what_is_broken
from fastdetr_mmdet.utils.files import UNFINISHED


def logged(work_dir: Path) -> dict[str, set]:
    """Distinct values that the runs in a folder logged, by name and step."""
    values = defaultdict(set)
    for path in sorted(work_dir.glob("*/vis_data/scalars.json")):
        for line in path.read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # a killed run's last line
                continue
            for name, value in row.items():
                if name.startswith(("loss", "grad_norm", "lr", "d0.", "enc_", "coco/")):
                    values[f"{name} at {row['step']}"].add(value)
    return dict(values)


def check_same(run: Path, expected: Path) -> None:
    """Check that logs and the last and best checkpoint are bit-identical."""
    values, expected_values = logged(run), logged(expected)
    assert len(expected_values) > 50
    check_equal(values, expected_values, "log")
    names = {path.name for path in expected.glob("*.pth")}
    assert {path.name for path in run.glob("*.pth")} == names
    for name in names:
        check_equal(state(run / name), state(expected / name), name)
    assert last_checkpoint(run).name == last_checkpoint(expected).name
    assert not list(run.glob(f"*{UNFINISHED}"))


def check_equal(actual: Any, expected: Any, where: str) -> None:
    """Check that dicts, lists and tensors are bit-identical."""
    assert type(actual) is type(expected), where
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys(), where
        for key in expected:
            check_equal(actual[key], expected[key], f"{where}: {key}")
    elif isinstance(expected, list | tuple):
        check_equal(dict(enumerate(actual)), dict(enumerate(expected)), where)
    elif isinstance(expected, torch.Tensor):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0, msg=where)
    else:
        assert actual == expected, where


def state(path: Path) -> dict:
    """A checkpoint's content for resuming, without the log."""
    checkpoint = torch.load(path, weights_only=True)
    parts = ("state_dict", "optimizer", "param_schedulers", "exact_resume")
    return {key: checkpoint[key] for key in parts if key in checkpoint}


def last_checkpoint(work_dir: Path) -> Path:
    """The file of last_checkpoint, by name, because the run may see another path."""
    return work_dir / Path((work_dir / "last_checkpoint").read_text()).name


def check_last_checkpoint(work_dir: Path) -> None:
    """Check that it names an intact file, or that no intact checkpoint exists."""
    paths = list(work_dir.glob("epoch_*.pth"))
    assert [what_is_broken(path) for path in paths] == [None] * len(paths)
    if (work_dir / "last_checkpoint").exists():
        assert what_is_broken(last_checkpoint(work_dir)) is None
    else:  # killed after the first checkpoint
        assert len(paths) <= 1
