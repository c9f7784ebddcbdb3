"""Parameters with the same settings share a group, and updates equal mmengine's."""

import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

SETTINGS = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-2, weight_decay=1e-2, fused=True),
    paramwise_cfg=dict(custom_keys={"inner": dict(lr_mult=0.1), "last": dict(decay_mult=0.0)}),
)
OURS = {**SETTINGS, "constructor": "GroupedOptimWrapperConstructor"}


class Net(nn.Module):
    """A model with alternating settings and a frozen parameter."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.inner = nn.ModuleDict(dict(a=nn.Linear(4, 4), frozen=nn.Linear(4, 4)))
        self.then = nn.Linear(4, 4)
        self.last = nn.Linear(4, 2)
        self.inner["frozen"].requires_grad_(False)

    def forward(self, x):
        return self.last(self.then(self.inner["a"](self.first(x)).relu()))


def step(net, wrapper, seed):
    torch.manual_seed(seed)
    wrapper.update_params(net(torch.randn(5, 3)).square().sum())


@pytest.fixture
def nets():
    torch.manual_seed(0)
    net = Net()
    return net, copy.deepcopy(net)


def assert_equal(one, other):
    for name, parameter in one.state_dict().items():
        assert torch.equal(parameter, other.state_dict()[name]), name


def test_same_updates_in_few_groups(nets):
    configs = (SETTINGS, OURS)
    wrappers = [build_optim_wrapper(net, cfg) for net, cfg in zip(nets, configs, strict=True)]
    own = [g for g in wrappers[1].optimizer.param_groups if g["params"]]
    assert sorted((g["lr"], g["weight_decay"], len(g["params"])) for g in own) == [
        (1e-3, 1e-2, 2),
        (1e-2, 0.0, 2),
        (1e-2, 1e-2, 4),
    ]
    for seed in range(3):
        for net, wrapper in zip(nets, wrappers, strict=True):
            step(net, wrapper, seed)
    assert_equal(*nets)


@pytest.mark.parametrize("config", [SETTINGS, OURS], ids=["a group per parameter", "its own"])
def test_goes_on_from_a_state(nets, config):
    one, other = nets
    before, after = build_optim_wrapper(one, config), build_optim_wrapper(other, OURS)
    step(one, before, 0)
    groups = before.optimizer.param_groups
    if config is SETTINGS:
        groups[0]["lr"] = groups[1]["lr"] = 0.5
    other.load_state_dict(one.state_dict())
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    if config is SETTINGS:
        assert 0.5 in [g["lr"] for g in after.optimizer.param_groups]
        for group in groups[4:6]:  # the setting that has 0.5 now
            assert group["lr"] == 1e-2
            group["lr"] = 0.5
    step(one, before, 1)
    step(other, after, 1)
    assert_equal(one, other)


def test_shared_parameter_is_refused(nets):
    net = nets[0]
    net.then.weight = net.first.weight = nn.Parameter(torch.ones(4, 4))
    with pytest.raises(ValueError, match="bypass_duplicate=True"):
        build_optim_wrapper(net, OURS)
    assert build_optim_wrapper(
        net, {**OURS, "paramwise_cfg": dict(SETTINGS["paramwise_cfg"], bypass_duplicate=True)}
    )
