"""Every parameter has the official code's initial distribution."""

import json
import math

import pytest
import torch
from mmdet.registry import MODELS
from support.golden import ROOT, GoldenCase
from support.golden_weights import canonical_keys
from torch import Tensor

from fastdetr_mmdet.checkpoints import convert_state_dict

STATS = sorted((ROOT / "tests" / "data" / "init_stats").glob("*.json"))
# Together these have every part; other cases are slow.
MAIN = (
    "conditional_r50",
    "deformable_two_stage",
    "smca_ms_conv",
    "smca_ss_type3",
    "sam_ms_smca_e50",
)
SIGMAS = 6  # sampling errors; a tensor fails by chance for one of 100000 seeds
NUM_HEADS = 8


def our_parameters(case: GoldenCase) -> dict[str, Tensor]:
    """Initial parameters of the shipped config's model, without the backbone."""
    config = case.model_config
    config.num_queries = 300
    config.backbone.depth = 18  # not compared, and not used by the necks
    model = MODELS.build(config)
    model.init_weights()
    return {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if not name.startswith("backbone.")
    }


def sources(case: GoldenCase, stats: dict[str, list]) -> dict[str, tuple[str, torch.Size]]:
    """This package's name -> its official parameter and shape.

    Converts a state dict whose elements are the index of their parameter, as in ``support.golden``.
    """
    names = [name for name, *_ in case.manifest["state_dict"]]
    first = canonical_keys(names, case.manifest["alias_groups"])
    for name in stats:
        assert stats[name] == stats[first[name]]
    order = list(stats)
    tags = {
        name: torch.full(shape, order.index(first[name])) for name, (shape, *_) in stats.items()
    }
    converted = convert_state_dict(tags, case.method)
    found = {}
    for ours, tag in converted.items():
        (index,) = tag.unique().tolist()
        found[ours] = (order[index], tag.shape)
    for official in {first[name] for name in stats}:  # no parameter is lost
        parts = [shape.numel() for name, shape in found.values() if name == official]
        assert sum(parts) == math.prod(stats[official][0])
    return found


def differs(parameter: Tensor, kind: str, value: float) -> bool:
    """Whether a tensor does not have the distribution."""
    if kind == "constant":
        expected = torch.full_like(parameter, value)
    elif kind == "rays":
        expected = rays(parameter.numel(), int(value))
    elif kind == "box size":
        expected = torch.tensor([0.0, 0.0, value, value])
    else:
        return not is_drawn(parameter, kind, value)
    return bool((parameter - expected).abs().max() > 1e-5)


def rays(count: int, num_points: int) -> Tensor:
    """Sampling offsets: head h points along angle h, its i-th point is at i cells (max-norm)."""
    offsets = []
    for head in range(NUM_HEADS):
        angle = 2 * math.pi * head / NUM_HEADS
        x, y = math.cos(angle), math.sin(angle)
        longest = max(abs(x), abs(y))
        for _ in range(count // (NUM_HEADS * num_points * 2)):  # levels
            for point in range(1, num_points + 1):
                offsets += [x / longest * point, y / longest * point]
    return torch.tensor(offsets)


def is_drawn(parameter: Tensor, kind: str, value: float) -> bool:
    """Whether mean, spread and, for uniform distributions, extremes agree."""
    count = parameter.numel()
    # kurtosis 1.8 of the uniform and 3 of the normal distribution
    std, kurtosis = dict(uniform=(value / math.sqrt(3), 1.8), normal=(value, 3.0))[kind]
    error = float(parameter.double().mean().abs()) / std * math.sqrt(count)
    spread = float(parameter.double().square().mean().sqrt()) / std
    right = error < SIGMAS and abs(spread - 1) < SIGMAS * math.sqrt((kurtosis - 1) / count) / 2
    if kind == "uniform":
        largest = float(parameter.abs().max()) / value
        right &= 0.5 ** (30 / count) < largest <= 1 + 1e-5
    return right


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=[pytest.mark.slow] * (p.stem not in MAIN), id=p.stem) for p in STATS],
)
def test_equals_official_code(path):
    case, stats = GoldenCase(path.stem), json.loads(path.read_text())
    ours, found = our_parameters(case), sources(case, stats)
    assert {name: p.shape for name, p in ours.items()} == {n: s for n, (_, s) in found.items()}
    wrong = []
    for name, (official, _) in found.items():
        _, kind, value = stats[official]
        if differs(ours[name], kind, value):
            wrong.append(f"{name}: {describe(ours[name])}, officially {kind} {value:.4g}")
    assert wrong == []


def describe(parameter: Tensor) -> str:
    low, high = (float(x) for x in parameter.aminmax())
    return f"{low:.4g} to {high:.4g}, std {float(parameter.std()):.4g}"


def test_branches_of_all_layers_start_equal():
    """The official codes copy one branch; only the first box branch's size bias differs."""
    config = GoldenCase("deformable_refine").model_config
    with_sizes = MODELS.build(config).bbox_head
    for branches in (with_sizes.cls_branches, with_sizes.reg_branches[1:]):
        for branch in branches:
            for ours, first in zip(branch.parameters(), branches[0].parameters(), strict=True):
                assert torch.equal(ours, first)
