"""Synthetic checkpoints: official names and shapes, one number per tensor, files of some kB."""

import argparse
import functools
import zlib
from pathlib import Path

import pytest
import torch
from support.golden import GoldenCase


@functools.cache
def _hollow(name: str) -> dict[str, torch.Tensor]:
    manifest = GoldenCase(name).manifest
    copies = {key: group[0] for group in manifest["alias_groups"] for key in group}
    return {
        key: torch.tensor(zlib.crc32(copies.get(key, key).encode()) % 1000 / 1e4).expand(shape)
        for key, shape, _ in manifest["state_dict"]
    }


@pytest.fixture(scope="session")
def hollow():
    """Makes the state dict of a golden case, as the official code's model has it."""
    return lambda name: dict(_hollow(name))


@pytest.fixture
def save(tmp_path):
    """Writes a state dict as the official codes write theirs."""

    def write(state_dict: dict, name: str = "official.pth", **options) -> Path:
        path = tmp_path / name
        checkpoint = dict(
            model=state_dict,
            optimizer=dict(state={0: dict(step=7, exp_avg=torch.zeros(3))}, param_groups=[{}]),
            lr_scheduler=dict(step_size=40, last_epoch=49, _last_lr=[1e-5]),
            epoch=49,
            args=argparse.Namespace(lr=1e-4, device="cuda", lr_backbone_names=["backbone.0"]),
        )
        torch.save(checkpoint, path, **options)
        return path

    return write


@pytest.fixture
def dst(tmp_path) -> Path:
    return tmp_path / "ours.pth"
