"""Every parameter of Conditional DETR is drawn from the distribution of the official code."""

import json
import math

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config
from support.golden import CASES, ROOT

from fastdetr_mmdet.checkpoints import convert_state_dict

STATS = json.loads((ROOT / "tests" / "data" / "init_stats" / "conditional_r50.json").read_text())
SIGMAS = 6  # of the sampling error: one of 299 tensors fails by chance once in a million runs


@pytest.fixture(scope="module")
def parameters():
    config = Config.fromfile(ROOT / "configs" / CASES["conditional_r50"]).model
    config.backbone.init_cfg = None
    config.bbox_head.num_classes = 91
    model = MODELS.build(config)
    model.init_weights()
    return dict(model.named_parameters())


def our_name(official: str) -> str:
    return next(iter(convert_state_dict({official: None}, "conditional_detr")))


def test_every_parameter_is_compared(parameters):
    ours = {name for name in parameters if not name.startswith("backbone.")}
    assert {our_name(name) for name in STATS} == ours


@pytest.mark.parametrize("kind", ["constant", "uniform", "normal"])
def test_distribution(parameters, kind):
    wrong = []
    for official, (shape, drawn, value) in STATS.items():
        if drawn != kind:
            continue
        tensor = parameters[our_name(official)].detach()
        assert list(tensor.shape) == shape
        count = tensor.numel()
        if kind == "constant":
            right = (tensor - value).abs().max() < 1e-5
        else:
            # kurtosis 1.8 of the uniform and 3 of the normal distribution
            std, kurtosis = (value / math.sqrt(3), 1.8) if kind == "uniform" else (value, 3.0)
            right = tensor.mean().abs() < SIGMAS * std / math.sqrt(count)
            spread = math.sqrt((tensor**2).mean())
            right &= abs(spread / std - 1) < SIGMAS * math.sqrt((kurtosis - 1) / count) / 2
            if kind == "uniform":
                largest = tensor.abs().max()
                right &= largest <= value * (1 + 1e-5)
                right &= largest > value * 0.5 ** (10 / count)
        if not right:
            wrong.append(f"{our_name(official)}: not {drawn} {value:.4g}")
    assert wrong == []
