"""detrex and the official DINO, whose codes cannot be installed: their names, by the sources."""

import re

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from support.dino import ROOT, theirs
from support.renamed import detrex, official_dino

from fastdetr_mmdet.checkpoints import convert_checkpoint, convert_state_dict
from fastdetr_mmdet.checkpoints.classes import COCO_IDS

DINO = "dino/dino-{}_8xb2-12e_coco.py"


def same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize("change", [lambda w: w, detrex], ids=["dino", "detrex"])
def test_small_dino(change):
    """The same weights as of mmdet's model, which computes what ours does (test_dino.py)."""
    model = theirs()
    weights = {k: torch.randn(v.shape) for k, v in model.state_dict().items() if v.dim()}
    official = official_dino(weights)
    expected = convert_state_dict(weights, "mmdet")
    projections = [key for key in expected if re.match(r"neck\..*conv\.bias", key)]
    for level, key in enumerate(projections):
        expected[key] = official[f"input_proj.{level}.0.bias"]
    method = "dino" if change(official) is official else "detrex"
    same(convert_state_dict(change(official), method), expected)


@pytest.mark.parametrize(
    ("case", "method"),
    [
        ("deformable_base", "deformable_detr"),
        ("deformable_refine", "deformable_detr"),
        ("deformable_two_stage", "deformable_detr"),
        ("deformable_single_scale", "deformable_detr"),
        ("conditional_r50", "conditional_detr"),
    ],
)
def test_detrex(case, method, hollow):
    official = hollow(case)
    renamed = detrex(official)
    same(convert_state_dict(renamed, "detrex"), convert_state_dict(official, method))
    torchvision = {k: v for k, v in renamed.items() if not k.startswith("backbone.")}
    torchvision |= {  # of its DC5 configs
        k.replace("backbone.0.body.", "backbone.body."): v
        for k, v in official.items()
        if k.startswith("backbone.")
    }
    same(convert_state_dict(torchvision, "detrex"), convert_state_dict(official, method))


def test_five_scales():
    """The last two of the official names are not those of four scales."""
    keys = [f"input_proj.{level}.{part}.weight" for level in (0, 3, 4) for part in (0, 1)]
    found = convert_state_dict({key: torch.zeros(1) for key in keys}, "dino")
    levels = ("convs.0", "convs.3", "extra_convs.0")
    assert [*found] == [f"neck.{x}.{part}.weight" for x in levels for part in ("conv", "gn")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "config"),
    # detrex has the positional encoding of the second
    [("dino", "4scale_r50"), ("detrex", "4scale_r50_improved")],
)
def test_published_dino(method, config, hollow_mmdet, dst):
    """In full size, with category ids as the official code has them."""
    weights = official_dino(hollow_mmdet(DINO.format("4scale_r50")))
    if method == "detrex":
        weights = detrex(weights)
    else:
        for key in [key for key in weights if "class_embed" in key]:
            rows = torch.arange(91.0).view(91, *[1] * (weights[key].dim() - 1))
            weights[key] = rows.expand(91, *weights[key].shape[1:])
        weights["label_enc.weight"] = torch.arange(92.0)[:, None].expand(92, 256)
    src = dst.with_name("theirs.pth")
    torch.save(dict(model=weights), src)
    report = convert_checkpoint(src, dst, method)
    assert report.configs[0] == "configs/" + DINO.format(config)
    assert report.options == {}
    config = Config.fromfile(ROOT / report.configs[0])
    config.model.backbone.init_cfg = None
    with torch.device("meta"):
        ours = MODELS.build(config.model)
    written = torch.load(dst, weights_only=True)["state_dict"]
    ours.load_state_dict(written, strict=True, assign=True)
    if method == "dino":
        ids = torch.tensor(COCO_IDS).float()
        for key in ("bbox_head.cls_branches.3.bias", "bbox_head.cls_branches.6.bias"):
            assert torch.equal(written[key], ids)
        assert torch.equal(written["transformer.queries.label_embedding.weight"][:, 5], ids)
