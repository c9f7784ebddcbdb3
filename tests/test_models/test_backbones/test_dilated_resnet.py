"""DC5 as torchvision does it: the first block of a dilated stage keeps the previous dilation."""

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from support.models import randomise
from support.tolerances import assert_near
from torch import nn

DC5 = dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))


def build(kind="DilatedResNet", depth=50, **kwargs):
    torch.manual_seed(0)
    config = dict(type=kind, depth=depth, base_channels=4, stem_channels=4, norm_eval=True)
    model = randomise(MODELS.build(config | DC5 | kwargs), scale=0.02)
    model.eval()  # mmdet's eval() does not return the model
    return model


def convolutions(stage):
    return [m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]


@pytest.mark.parametrize(
    "options, dilations",
    [
        (dict(), [[1, 1, 1], [1, 1, 1, 1], [1] * 6, [1, 2, 2]]),
        (
            dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
            [[1, 1, 1], [1, 1, 1, 1], [1, 2, 2, 2, 2, 2], [2, 4, 4]],
        ),
        # torchvision dilates no basic blocks; mmdet's dilate their first convolution only
        (dict(depth=18), [[1] * 4, [1] * 4, [1] * 4, [1, 1, 2, 1]]),
    ],
    ids=["one stage", "two stages", "basic blocks"],
)
def test_the_first_block_keeps_the_dilation_of_the_stage_before(options, dilations):
    model = build(**options)
    stages = [convolutions(getattr(model, name)) for name in model.res_layers]
    for attribute in ("dilation", "padding"):
        assert [[getattr(c, attribute)[0] for c in stage] for stage in stages] == dilations


def test_last_stage_keeps_the_resolution():
    features = build()(torch.randn(1, 3, 64, 96))
    assert [tuple(f.shape[-2:]) for f in features] == [(16, 24), (8, 12), (4, 6), (4, 6)]


def by_torchvision(block, x, dilation, stride):
    """torchvision's Bottleneck with this block's weights."""
    out = block.bn1(F.conv2d(x, block.conv1.weight)).relu()
    out = F.conv2d(out, block.conv2.weight, stride=stride, padding=dilation, dilation=dilation)
    out = block.bn3(F.conv2d(block.bn2(out).relu(), block.conv3.weight))
    return (out + (x if block.downsample is None else block.downsample(x))).relu()


def test_last_stage_equals_torchvisions():
    model = build()
    x = torch.randn(1, model.layer4[0].conv1.in_channels, 6, 9)
    expected = x
    for block, dilation in zip(model.layer4, (1, 2, 2), strict=True):
        expected = by_torchvision(block, expected, dilation, stride=1)
    assert_near(model.layer4(x), expected)


def test_differs_from_mmdets():
    """With the same weights, mmdet's ResNet gives other results."""
    ours, theirs = build(), build("ResNet")
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert_near(ours(x)[2], theirs(x)[2])
    assert not torch.allclose(ours(x)[3], theirs(x)[3])


@pytest.mark.parametrize("depth", [18, 50])
def test_equals_mmdets_without_dilation(depth):
    plain = dict(strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1))
    ours, theirs = build(depth=depth, **plain), build("ResNet", depth=depth, **plain)
    assert isinstance(ours, ResNet)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 3, 64, 64)
    for mine, other in zip(ours(x), theirs(x), strict=True):
        assert_near(mine, other)
