"""Frozen batch norms folded into convolutions: mmdet's ResNet with less work."""

import pytest
import torch
from mmdet.registry import MODELS
from support.models import randomise
from support.tolerances import assert_near

from fastdetr_mmdet.models.backbones.folded_resnet import FoldedResNet

SMALL = dict(base_channels=4, stem_channels=4)
FROZEN = dict(norm_eval=True, frozen_stages=1, norm_cfg=dict(type="BN", requires_grad=False))
PLUGIN = dict(
    cfg=dict(type="ContextBlock", ratio=0.5),
    stages=(False, True, False, False),
    position="after_conv2",
)


def pair(**kwargs):
    """Ours and mmdet's with the same weights and statistics, in training mode."""
    torch.manual_seed(0)
    ours, theirs = (MODELS.build(dict(type=t) | SMALL | kwargs) for t in ("FoldedResNet", "ResNet"))
    randomise(ours, scale=0.05)
    for name, buffer in ours.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    theirs.load_state_dict(ours.state_dict())
    ours.train()
    theirs.train()
    return ours, theirs


VARIANTS = {
    "frozen": dict(depth=50) | FROZEN,
    "basic blocks": dict(depth=18) | FROZEN,
    "scales learn": dict(depth=18, norm_eval=True),
    "norms learn": dict(depth=18, norm_eval=False),
    "V1d": dict(depth=50, deep_stem=True, avg_down=True) | FROZEN,
    "caffe": dict(depth=50, style="caffe") | FROZEN,
    "checkpointed": dict(depth=50, with_cp=True) | FROZEN,
    "plugin": dict(depth=50, plugins=[PLUGIN]) | FROZEN,
    "no batch norm": dict(depth=18, norm_cfg=dict(type="GN", num_groups=2)),
}


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_equals_mmdets(variant):
    """Maps, gradients by the image and by every parameter, running statistics."""
    models = pair(**VARIANTS[variant])
    results = []
    for model in models:
        x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
        x.requires_grad_()
        maps = model(x)
        sum(m.square().mean() for m in maps).backward()
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        buffers = {n: b.float() for n, b in model.named_buffers()}
        results.append((dict(enumerate(maps)), {"x": x.grad, **grads}, buffers))
    for ours, theirs in zip(*results, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            scale = float(theirs[name].abs().max())
            assert_near(ours[name], theirs[name], atol=max(1e-5, 2e-5 * scale), rtol=1e-3)


def test_keeps_less_for_the_gradient():
    kept = {}
    for model in pair(depth=50, **FROZEN):
        sizes = {}

        def note(x, sizes=sizes):
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            model(torch.randn(1, 3, 256, 256))
        kept[type(model)] = sum(sizes.values())
    ours, theirs = kept[FoldedResNet], max(kept.values())
    assert ours < 0.65 * theirs


def test_frozen_norms_are_not_called():
    """As mmdet's are; those that learn are called here too."""
    for variant, expected in ((FROZEN, (0, 53)), (dict(norm_eval=False), (53, 53))):
        counts = []
        for model in pair(depth=50, **variant):
            calls = []
            for module in model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.register_forward_hook(lambda *args, calls=calls: calls.append(1))
            model(torch.randn(2, 3, 64, 64))
            counts.append(len(calls))
        assert tuple(counts) == expected
