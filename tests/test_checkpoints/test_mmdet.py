"""Converted DETRs of mmdet's shipped configs give mmdet's results."""

import re
from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from support.models import make_batch, randomise
from support.runs import ROOT
from support.tolerances import assert_near

from fastdetr_mmdet.checkpoints import convert_checkpoint, convert_state_dict
from fastdetr_mmdet.checkpoints.shipped_configs import HostLinspace

SHIPPED = Path(mmdet.__file__).parent / ".mim" / "configs"
NUM_QUERIES = 50
NAMES = [
    "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py",
    "deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py",
    "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py",
    "conditional_detr/conditional-detr_r50_8xb2-50e_coco.py",
]
DINO = [
    "dino/dino-4scale_r50_8xb2-12e_coco.py",
    "dino/dino-5scale_swin-l_8xb2-12e_coco.py",
]
META = dict(CLASSES=tuple(f"class {number}" for number in range(80)), PALETTE=[(1, 2, 3)])


def narrow(name: str, root: Path):
    """Model config of mmdet or this package with the same narrow ResNet-18."""
    config = Config.fromfile(root / name).model
    config.num_queries = NUM_QUERIES
    config.backbone.update(depth=18, base_channels=8, init_cfg=None)
    config.neck.in_channels = [channels // 32 for channels in config.neck.in_channels]
    return config


@pytest.mark.parametrize("name", [*NAMES[:3], pytest.param(NAMES[3], marks=pytest.mark.smoke)])
@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_equals_mmdet(name):
    torch.manual_seed(0)
    theirs = MODELS.build(narrow(name, SHIPPED))
    if hasattr(theirs, "level_embed"):  # left as the memory was
        torch.nn.init.normal_(theirs.level_embed)
    randomise(theirs, scale=0.03 if "twostage" in name else 0.05).eval()
    ours = MODELS.build(narrow(f"configs/{name}", ROOT)).eval()
    ours.load_state_dict(convert_state_dict(theirs.state_dict(), "mmdet"), strict=True)
    inputs, samples = make_batch(((128, 96), (96, 128)))
    with torch.no_grad():
        expected, found = theirs._forward(inputs, samples), ours._forward(inputs, samples)
        assert found[0].shape == (6, 2, NUM_QUERIES, 80)
        for one, other in zip(found, expected, strict=True):
            assert other.std() > 0.1  # the weights make a difference
            assert_near(one, other)


@pytest.mark.parametrize(
    "name",
    [*NAMES[2:], DINO[0], *(pytest.param(n, marks=pytest.mark.slow) for n in NAMES[:2] + DINO[1:])],
)
def test_shipped_models(name, hollow_mmdet, dst):
    """In full size; the report names the config, which loads the file strictly."""
    src = dst.with_name("theirs.pth")
    torch.save(dict(state_dict=hollow_mmdet(name), meta=dict(dataset_meta=META)), src)
    report = convert_checkpoint(src, dst, "mmdet")
    assert report.configs[0] == f"configs/{name}"
    options = {}
    if "dino" in name and mmdet.__version__ >= "3.4":  # embeds references in more features
        options = {"model.transformer.decoder.reference_feats": 256}
    assert report.options == options and report.num_classes == 80
    config = Config.fromfile(ROOT / report.configs[0])
    config.merge_from_dict({**options, "model.backbone.init_cfg": None})
    with torch.device("meta"), HostLinspace():
        ours = MODELS.build(config.model)
    written = torch.load(dst, weights_only=True)
    ours.load_state_dict(written["state_dict"], strict=True, assign=True)
    assert written["meta"]["dataset_meta"] == dict(classes=META["CLASSES"], palette=[(1, 2, 3)])
    biases = [v for k, v in ours.state_dict().items() if re.match(r"neck\..*conv\.bias$", k)]
    if "conditional" in name:
        assert [bool(bias.all()) for bias in biases] == [True]
    else:  # mmdet has no biases before a norm
        assert not any(bias.any() for bias in biases) and len(biases) in (4, 5)


def test_own_classes_and_their_names(hollow_mmdet, tmp_path, dst):
    """Class names are kept if their number equals the logits'."""
    weights = hollow_mmdet(NAMES[3])
    for key in ("bbox_head.fc_cls.weight", "bbox_head.fc_cls.bias"):
        weights[key] = weights[key][:2]
    for names in (("cat", "dog"), ("cat",), None):
        src = tmp_path / "theirs.pth"
        torch.save(dict(state_dict=weights, meta=dict(dataset_meta=dict(classes=names))), src)
        report = convert_checkpoint(src, dst, "mmdet")
        assert report.options == {"model.bbox_head.num_classes": 2} and report.num_classes == 2
        assert "80" in report.notes[-1] and "2" in report.notes[-1]
        meta = torch.load(dst, weights_only=True)["meta"]
        assert meta.get("dataset_meta") == (
            dict(classes=names) if names == ("cat", "dog") else None
        )


def test_other_models_of_mmdet(hollow_mmdet, tmp_path, dst):
    """DAB-DETR has most of Conditional DETR's names and some other names."""
    src = tmp_path / "theirs.pth"
    torch.save(dict(state_dict=hollow_mmdet("dab_detr/dab-detr_r50_8xb2-50e_coco.py")), src)
    with pytest.raises(ValueError, match="mmdet's own Deformable"):
        convert_checkpoint(src, dst, "mmdet")
