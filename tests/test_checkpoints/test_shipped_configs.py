"""The shipped config of weights is found by names and shapes."""

import functools

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from support.golden import CASES, ROOT, GoldenCase

from fastdetr_mmdet.checkpoints import convert_checkpoint, convert_state_dict
from fastdetr_mmdet.checkpoints.classes import map_classes
from fastdetr_mmdet.checkpoints.shipped_configs import find_configs

DEFORMABLE = "deformable_detr/deformable-detr"
CONDITIONAL = "conditional_detr/conditional-detr"
SMCA, SAM = "smca_detr/smca-detr", "sam_detr/sam-detr"
SMCA_SINGLE = (f"{SMCA}_r50_8xb2-50e", f"{SMCA}_r50_8xb2-108e")
# Every config that fits, without the common suffix.
CONFIGS = {
    "deformable_base": (f"{DEFORMABLE}_r50_16xb2-50e",),
    "deformable_refine": (f"{DEFORMABLE}-refine_r50_16xb2-50e",),
    "deformable_two_stage": (f"{DEFORMABLE}-refine-twostage_r50_16xb2-50e",),
    "deformable_single_scale": (
        f"{DEFORMABLE}-single-scale_r50_16xb2-50e",
        f"{DEFORMABLE}-single-scale_r50-dc5_16xb2-50e",
    ),
    "conditional_r50": (f"{CONDITIONAL}_r50_8xb2-50e", f"{CONDITIONAL}_r50-dc5_8xb1-50e"),
    "conditional_r101": (f"{CONDITIONAL}_r101_8xb2-50e", f"{CONDITIONAL}_r101-dc5_8xb1-50e"),
    "smca_ss_type1": SMCA_SINGLE,
    "smca_ss_type2": SMCA_SINGLE,
    "smca_ss_type3": SMCA_SINGLE,
    "smca_ss_type4": SMCA_SINGLE,
    "smca_ms_conv": (f"{SMCA}-ms-conv_r50_8xb1-50e",),
    "smca_ms_conv_later": (f"{SMCA}-ms-conv_r50_8xb1-50e",),
    "sam_r50_e12": (f"{SAM}_r50_4xb4-12e", f"{SAM}_r50-dc5_8xb1-12e"),
    "sam_r50_e50": (f"{SAM}_r50_4xb4-50e", f"{SAM}_r50-dc5_8xb1-50e"),
    "sam_r50_smca_e12": (f"{SAM}-smca_r50_4xb4-12e", f"{SAM}-smca_r50-dc5_8xb1-12e"),
    "sam_r50_smca_e50": (f"{SAM}-smca_r50_4xb4-50e", f"{SAM}-smca_r50-dc5_8xb1-50e"),
    "sam_ms_e50": (f"{SAM}-ms_r50_8xb2-12e", f"{SAM}-ms_r50_8xb2-50e"),
    "sam_ms_smca_e50": (f"{SAM}-ms-smca_r50_8xb2-12e", f"{SAM}-ms-smca_r50_8xb2-50e"),
}
CONFIGS |= {
    "deformable_single_scale_dc5": CONFIGS["deformable_single_scale"],
    "conditional_r50_dc5": CONFIGS["conditional_r50"],
    "sam_dc5_e50": CONFIGS["sam_r50_e50"],
    "sam_dc5_smca_e50": CONFIGS["sam_r50_smca_e50"],
}


@functools.cache
def empty_model(path: str, options: tuple):
    config = Config.fromfile(ROOT / path)
    config.merge_from_dict(dict(options))
    config.model.backbone.init_cfg = None
    with torch.device("meta"):
        return MODELS.build(config.model)


# One case per method and rename rule; other cases differ in depth or dilation only.
QUICK = ("conditional_r50", "deformable_base", "deformable_two_stage", "smca_ms_conv",
         "smca_ss_type3", "sam_r50_smca_e12", "sam_ms_smca_e50")  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in CASES]
)
def test_every_official_case(name, hollow, save, dst):
    case = GoldenCase(name)
    report = convert_checkpoint(save(hollow(name)), dst, case.method)
    assert report.configs == tuple(f"configs/{config}_coco.py" for config in CONFIGS[name])
    options = {f"model.{key}": value for key, value in CASES[name].overrides.items()}
    if name != "deformable_two_stage":  # it has no weights of queries
        options["model.num_queries"] = 16
    assert report.options == options
    assert (report.found_classes, report.num_classes) == (case.num_classes, 80)
    state_dict = torch.load(dst, weights_only=True)["state_dict"]
    model = empty_model(report.configs[-1], tuple(report.options.items()))
    model.load_state_dict(state_dict, strict=True, assign=True)


def recognised(official, method):
    weights = map_classes(convert_state_dict(official, method), None)
    fits = find_configs({key: tuple(value.shape) for key, value in weights.items()}, method)
    assert fits[0].differing == ()
    return fits


def test_backbone_that_no_config_has(hollow):
    """ImageNet weights would be another depth's, and are not needed."""
    official = {k: v for k, v in hollow("sam_ms_e50").items() if "backbone" not in k}
    other = hollow("conditional_r101").items()
    official |= {k: v for k, v in other if "backbone" in k}
    for fit in recognised(official, "sam_detr"):
        assert fit.options == {
            "num_queries": 16,
            "backbone.depth": 101,
            "backbone.init_cfg": None,
        }


def test_sizes_that_no_config_has(hollow):
    """Fewer layers, narrower feed-forward blocks."""
    official = {}
    for key, value in hollow("conditional_r50").items():
        if "layers.5" in key and "encoder" in key:
            continue
        if ".linear1." in key and ".encoder." in key:
            value = value[:1024]
        if key.endswith(".linear2.weight") and ".encoder." in key:
            value = value[:, :1024]
        official[key] = value
    (fit, _) = recognised(official, "conditional_detr")
    assert fit.options["transformer.encoder.num_layers"] == 5
    assert fit.options["transformer.encoder.feedforward_channels"] == 1024


def test_refinement_where_no_config_has_it(hollow):
    """Single scale with refinement: the single-scale configs with two options."""
    official = hollow("deformable_single_scale")
    for key in [key for key in official if key.startswith("bbox_embed.")]:
        official[f"transformer.decoder.{key}"] = official[key]
    fits = recognised(official, "deformable_detr")
    assert [("single-scale" in fit.config, fit.dilated) for fit in fits] == [
        (True, False),
        (True, True),
    ]
    for fit in fits:
        assert fit.options["transformer.decoder.refine"] is True
        assert fit.options["bbox_head.share_pred_layer"] is False


def test_impossible_shapes_are_compared(hollow):
    key = "transformer.decoder.layers.0.spatial_prior.scale_branch.weight"
    weights = map_classes(convert_state_dict(hollow("smca_ss_type2"), "smca_detr"), None)
    shapes = {name: tuple(value.shape) for name, value in weights.items()} | {key: ()}
    (fit, _) = find_configs(shapes, "smca_detr")
    assert fit.shapes == ((key, (), (8, 256)),)
