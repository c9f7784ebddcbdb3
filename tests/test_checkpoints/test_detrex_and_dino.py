"""Names of detrex and the official DINO, which cannot be installed, from their source code."""

import re

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from support.dino import ROOT, theirs
from support.renamed import detrex, official_dino
from support.tolerances import assert_same

from fastdetr_mmdet.checkpoints import convert_checkpoint, convert_state_dict
from fastdetr_mmdet.checkpoints.classes import COCO_IDS

DINO = "dino/dino-{}_8xb2-12e_coco.py"


def converted(weights, official):
    """mmdet's weights with this package's names, and the official code's biases."""
    expected = convert_state_dict(weights, "mmdet")
    projections = [key for key in expected if re.match(r"neck\..*conv\.bias", key)]
    for level, key in enumerate(projections):
        expected[key] = official[f"input_proj.{level}.0.bias"]
    return {k: v for k, v in expected.items() if not k.endswith("num_batches_tracked")}


@pytest.mark.parametrize("method", ["dino", "detrex"])
def test_small_dino(method):
    """Converted weights equal mmdet's, whose results test_dino.py compares."""
    model = theirs()
    weights = {k: torch.randn(v.shape) for k, v in model.state_dict().items() if v.dim()}
    official = official_dino(weights)
    given = detrex(official) if method == "detrex" else official
    assert_same(convert_state_dict(given, method), converted(weights, official))


def test_dino_with_swin(hollow_mmdet):
    """Five scales, and the names of Swin's own code."""
    weights = hollow_mmdet("dino/dino-5scale_swin-l_8xb2-12e_coco.py")
    official = official_dino(weights)
    expected = converted(weights, official)
    point_head = "transformer.decoder.ref_point_head.0.weight"
    expected[point_head] = expected[point_head][:, :512]
    assert_same(convert_state_dict(official, "dino"), expected)


def test_merged_patches_of_swin():
    """Swin's code orders pixels of a patch: upper left, lower left, upper right, lower right."""
    key, place = "layers.0.downsample.reduction.weight", torch.tensor([0, 2, 1, 3])
    theirs = (place[:, None] + 10 * torch.arange(3)).flatten().float()[None]
    swin = {f"backbone.0.{key}": theirs, "backbone.0.patch_embed.proj.weight": torch.zeros(1)}
    found = convert_state_dict(swin, "dino")[f"backbone.{key.replace('layers', 'stages')}"]
    assert found[0].tolist() == [10 * channel + pixel for channel in range(3) for pixel in range(4)]


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
    assert_same(convert_state_dict(renamed, "detrex"), convert_state_dict(official, method))
    torchvision = {k: v for k, v in renamed.items() if not k.startswith("backbone.")}
    torchvision |= {  # for its DC5 configs
        k.replace("backbone.0.body.", "backbone.body."): v
        for k, v in official.items()
        if k.startswith("backbone.")
    }
    assert_same(convert_state_dict(torchvision, "detrex"), convert_state_dict(official, method))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "config"),
    # detrex has the positional encoding of the second
    [("dino", "4scale_r50"), ("detrex", "4scale_r50_improved")],
)
def test_published_dino(method, config, hollow_mmdet, dst):
    """In full size, with category ids as in the official code."""
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
