"""FoldedResNet equals mmdet's ResNet."""

import copy
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from mmdet.registry import MODELS
from support.memories import make_memory
from support.models import randomise
from support.tolerances import assert_near
from support.versions import needs_cuda_without_gpu
from torch import nn

from fastdetr_mmdet.models.backbones import folded_resnet
from fastdetr_mmdet.models.backbones.folded_resnet import FoldedResNet

SMALL = dict(base_channels=4, stem_channels=4)
FROZEN = dict(norm_eval=True, frozen_stages=1, norm_cfg=dict(type="BN", requires_grad=False))
PLUGIN = dict(
    cfg=dict(type="ContextBlock", ratio=0.5),
    stages=(False, True, False, False),
    position="after_conv2",
)


def pair(**kwargs):
    """FoldedResNet and mmdet's ResNet with equal weights and statistics, in training mode."""
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
    """Maps, gradients of image and parameters, running statistics."""
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
    """Trained norms are called."""
    for variant, expected in ((FROZEN, (0, 53)), (dict(norm_eval=False), (53, 53))):
        counts = []
        for model in pair(depth=50, **variant):
            calls = []
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.register_forward_hook(lambda *args, calls=calls: calls.append(1))
            model(torch.randn(2, 3, 64, 64))
            counts.append(len(calls))
        assert tuple(counts) == expected


def by_ema(model):
    for parameter in model.parameters():  # like mmengine's EMAHook, which does not raise versions
        parameter.data.copy_(parameter.data * 0.9)


def by_optimiser(model):
    with torch.enable_grad():
        model(torch.ones(1, 3, 64, 64))[-1].sum().backward()
    torch.optim.SGD(model.parameters(), lr=1e-3).step()


def by_training(model):
    model.train()
    model(torch.ones(2, 3, 64, 64))
    model.eval()


CHANGES = {
    "EMA": by_ema,
    "optimiser": by_optimiser,
    "statistics": by_training,
    "load_state_dict": lambda m: m.load_state_dict({k: v / 2 for k, v in m.state_dict().items()}),
    "other tensors": lambda m: setattr(m.conv1.weight, "data", m.conv1.weight.data / 2),
    "norms in training mode": lambda m: m.layer1.train(),
    "float64": lambda m: m.double(),
}


@pytest.mark.parametrize("change", list(CHANGES))
@torch.no_grad()
def test_what_is_kept_follows_the_weights(change):
    models = pair(depth=18, norm_eval=False)
    x = torch.randn(2, 3, 64, 64)
    for model in models:
        model.eval()
        model(x)
        CHANGES[change](model)
    x = x.to(models[0].conv1.weight.dtype)
    for ours, theirs in zip(*(model(x) for model in models), strict=True):
        assert_near(ours, theirs)


@torch.no_grad()
def test_weights_are_folded_once(monkeypatch):
    """Also with threads; folded weights are not part of the model, copies or files."""
    calls = []
    fold = folded_resnet._fold
    monkeypatch.setattr(folded_resnet, "_fold", lambda *args: calls.append(1) or fold(*args))
    model = pair(depth=18, **FROZEN)[0]
    before, x = set(vars(model)), torch.randn(1, 3, 64, 64)
    expected = model(x)
    assert len(calls) == 20 and set(vars(model)) == before
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(torch.no_grad()(model), 4 * [x]))
    assert len(calls) == 20
    copies = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    for maps in (*found, *(other(x) for other in copies)):
        for ours, wanted in zip(maps, expected, strict=True):
            assert torch.equal(ours, wanted)
    assert len(calls) == 60
    alive = len(folded_resnet._KEPT)
    del model, copies, pool
    assert len(folded_resnet._KEPT) <= alive - 3


def strided_gradients():
    """Gradients in the backbone, after its maps, and after an encoder's maps."""
    torch.set_num_threads(1)
    narrow, wide = (
        FoldedResNet(depth=18, base_channels=c, stem_channels=c, norm_eval=True) for c in (4, 16)
    )
    neck, strided = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1, stride=2, bias=False)
    memory = make_memory(2 * ((448, 640),), embed_dims=4)
    for part in (
        lambda: narrow(torch.randn(2, 3, 224, 320))[-1],
        lambda: strided(neck(wide(torch.randn(2, 3, 224, 320))[0])),
        lambda: strided(memory.maps()[0]),
    ):
        for _ in range(12):
            part().square().mean().backward()


def test_gradients_of_narrow_maps_do_not_corrupt_memory():
    """oneDNN's gradient of a strided 1x1 convolution with few channels, channels last.

    In a separate process, which the corruption would kill.
    """
    start = "spawn" if torch.cuda.is_initialized() else "fork"  # avoids the imports
    process = multiprocessing.get_context(start).Process(target=strided_gradients)
    process.start()
    process.join()
    assert process.exitcode == 0


@needs_cuda_without_gpu
def test_autocast_is_asked_for_as_every_torch_can(monkeypatch):
    """torch 2.3's function takes no argument."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda: True)
    with torch._subclasses.FakeTensorMode():
        assert FoldedResNet(18)._channels_last(torch.empty(1, 3, 8, 8, device="cuda"))
