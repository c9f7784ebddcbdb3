"""Synthetic checkpoints with official names and shapes and one number per tensor: a few kB."""

import argparse
import functools
import zlib
from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from support.golden import GoldenCase
from support.hf import CASES, small

from fastdetr_mmdet.checkpoints import shipped_configs
from fastdetr_mmdet.checkpoints.shipped_configs import HostLinspace


def _number(key: str, shape) -> torch.Tensor:
    return torch.tensor(zlib.crc32(key.encode()) % 1000 / 1e4).expand(shape)


@functools.cache
def _hollow(name: str) -> dict[str, torch.Tensor]:
    manifest = GoldenCase(name).manifest
    copies = {key: group[0] for group in manifest["alias_groups"] for key in group}
    return {key: _number(copies.get(key, key), shape) for key, shape, _ in manifest["state_dict"]}


@pytest.fixture(scope="session")
def hollow():
    """Makes the official model's state dict of a golden case."""
    return lambda name: dict(_hollow(name))


@pytest.fixture(scope="session")
def hollow_mmdet():
    """Makes the state dict of a config that mmdet ships."""

    def make(name: str) -> dict[str, torch.Tensor]:
        config = Config.fromfile(Path(mmdet.__file__).parent / ".mim" / "configs" / name).model
        config.backbone.init_cfg = None
        with torch.device("meta"), HostLinspace():
            weights = MODELS.build(config).state_dict(keep_vars=True)
        first: dict[int, str] = {}  # first name of each tensor
        return {
            key: _number(first.setdefault(id(value), key), value.shape)
            for key, value in weights.items()
        }

    return make


@pytest.fixture
def save(tmp_path):
    """Writes a state dict in the form of the official codes."""

    def write(state_dict: dict, args: dict | None = None, **options) -> Path:
        path = tmp_path / "official.pth"
        checkpoint = dict(
            model=state_dict,
            optimizer=dict(state={0: dict(step=7, exp_avg=torch.zeros(3))}, param_groups=[{}]),
            lr_scheduler=dict(step_size=40, last_epoch=49, _last_lr=[1e-5]),
            epoch=49,
            args=argparse.Namespace(lr=1e-4, lr_backbone_names=["backbone.0"], **(args or {})),
        )
        torch.save(checkpoint, path, **options)
        return path

    return write


@pytest.fixture
def only(monkeypatch):
    """Makes the small config of a Hugging Face case the only shipped one."""

    def change(name: str, **changes) -> Config:
        config, path = small(name), f"configs/{CASES[name][0]}.py"
        config.merge_from_dict({f"model.{k.replace('__', '.')}": v for k, v in changes.items()})
        found = {path.split("/")[1]: {path: config}}
        monkeypatch.setattr(shipped_configs, "shipped_configs", lambda name: found.get(name, {}))
        return config

    return change


@pytest.fixture
def dst(tmp_path) -> Path:
    return tmp_path / "ours.pth"
