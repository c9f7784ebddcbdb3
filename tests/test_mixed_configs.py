"""The mixed configs: short children of shipped ones, with the parts that they are named after."""

import ast

import mixed_report
import pytest
from mixed_report import MIXED, missing_modules
from mmengine.config import Config
from support.golden import ROOT

CONFIGS = {path.stem: path for path in sorted(MIXED.glob("*.py"))}
NUM_QUERIES = 12

# What each name promises, as paths below `model`.
PARTS = {
    "sam-conditional-detr_r50_8xb2-50e_coco": {
        "transformer.queries.type": "LearnedBoxQueries",
        "transformer.decoder.type": "ConditionalDecoder",
        "transformer.decoder.aligner.type": "SAMSemanticAligner",
        "transformer.decoder.cross_attn.type": "ConditionalAttention",
        "transformer.decoder.refine": True,
        "backbone.type": "FoldedResNet",
    },
    "smca-conditional-detr_r50_8xb2-50e_coco": {
        "transformer.decoder.type": "ConditionalDecoder",
        "transformer.decoder.spatial_prior.type": "GaussianPrior",
        "transformer.decoder.cross_attn.type": "ConditionalAttention",
        "backbone.type": "FoldedResNet",
    },
    "deformable-conditional-detr_r50_16xb2-50e_coco": {
        "neck.num_outs": 4,
        "transformer.encoder.type": "DeformableDetrEncoder",
        "transformer.decoder.type": "ConditionalDecoder",
        "transformer.decoder.cross_attn.type": "ConditionalAttention",
        "backbone.type": "FoldedResNet",
    },
    "deformable-smca-detr_r50_8xb1-50e_coco": {
        "neck.num_outs": 3,
        "transformer.encoder.type": "DeformableDetrEncoder",
        "transformer.decoder.spatial_prior.type": "GaussianPrior",
        "transformer.decoder.spatial_prior.num_levels": 3,
        "transformer.decoder.cross_attn.type": "SMCAAttention",
        "transformer.decoder.cross_attn.num_levels": 3,
        "backbone.type": "FoldedResNet",
    },
    "sam-detr-smca-twostage_r50_4xb4-50e_coco": {
        "transformer.queries.type": "TwoStageQueries",
        "transformer.decoder.aligner.type": "SAMSemanticAligner",
        "transformer.decoder.spatial_prior.type": "SalientGaussianPrior",
        "transformer.decoder.cross_attn.type": "SAMAttention",
        "backbone.type": "FoldedResNet",
    },
    "sam-detr-ms-refine-twostage_r50_8xb2-50e_coco": {
        "neck.num_outs": 3,
        "transformer.queries.type": "TwoStageQueries",
        "transformer.decoder.aligner.type": "SAMSemanticAligner",
        "transformer.decoder.cross_attn.type": "SAMAttention",
        "transformer.decoder.level_schedule": (2, 2, 1, 1, 0, 0),
        "transformer.decoder.refine": True,
        "backbone.type": "FoldedResNet",
    },
    "deformable-detr-refine_swin-t_16xb2-50e_coco": {
        "transformer.encoder.type": "DeformableDetrEncoder",
        "transformer.decoder.cross_attn.type": "DeformableAttention",
        "transformer.decoder.refine": True,
        "backbone.type": "SwinTransformer",
        "backbone.out_indices": (1, 2, 3),
    },
    "sam-detr-ms_convnext-t_8xb2-50e_coco": {
        "neck.num_outs": 3,
        "transformer.decoder.aligner.type": "SAMSemanticAligner",
        "transformer.decoder.cross_attn.type": "SAMAttention",
        "backbone.type": "mmpretrain.ConvNeXt",
        "backbone.arch": "tiny",
    },
    "conditional-detr_timm-focalnet-t_8xb2-50e_coco": {
        "transformer.decoder.type": "ConditionalDecoder",
        "transformer.decoder.cross_attn.type": "ConditionalAttention",
        "backbone.type": "mmpretrain.TIMMBackbone",
        "backbone.model_name": "focalnet_tiny_srf",
        "backbone.features_only": True,
    },
}
# What these import besides; mmpretrain is not among this project's packages.
FOREIGN = {name: ["mmpretrain"] for name in PARTS if PARTS[name]["backbone.type"][:2] == "mm"}

each_config = pytest.mark.parametrize("name", CONFIGS)


def load(name):
    """Without importing what the config imports, which may not be installed."""
    return Config.fromfile(CONFIGS[name], import_custom_modules=False)


def bases(path):
    """The files that a config names as its `_base_`."""
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Assign) and statement.targets[0].id == "_base_":
            named = ast.literal_eval(statement.value)
            names = [named] if isinstance(named, str) else named
            return [(path.parent / name).resolve() for name in names]
    return []


def test_every_mixed_config_is_described():
    assert set(PARTS) == set(CONFIGS)
    text = (MIXED / "README.md").read_text()
    assert [name for name in CONFIGS if f"]({name}.py)" not in text] == []


@each_config
def test_is_at_most_ten_lines(name):
    lines = [line.strip() for line in CONFIGS[name].read_text().splitlines()]
    assert len([line for line in lines if line and not line.startswith("#")]) <= 10


@each_config
def test_inherits_from_a_shipped_primitive(name):
    """A primitive is made of files in _base_; mmdet allows three levels above these."""
    path, levels = CONFIGS[name], 1
    while any("_base_" not in base.parts for base in bases(path)):
        (path,) = bases(path)
        levels += 1
        assert MIXED not in path.parents
        assert (ROOT / "configs") in path.parents
    assert len(bases(path)) == 4  # model, data set, schedule, runtime
    assert 2 <= levels <= 3


@each_config
def test_has_the_parts_of_its_name(name):
    model = load(name).model
    for path, expected in PARTS[name].items():
        part = model
        for key in path.split("."):
            part = part[key]
        if isinstance(expected, tuple):
            part = tuple(part)
        assert part == expected, path


@each_config
def test_imports_this_package_and_nothing_that_may_be_missing_silently(name):
    imports = load(name).custom_imports
    assert imports["imports"][0] == "fastdetr_mmdet"
    assert imports["allow_failed_imports"] is False
    packages = {module.split(".")[0] for module in imports["imports"]} - {"fastdetr_mmdet"}
    assert sorted(packages) == FOREIGN.get(name, [])


def test_missing_packages_are_told(tmp_path):
    config = tmp_path / "config.py"
    config.write_text("custom_imports = dict(imports=['fastdetr_mmdet', 'no_such_package.models'])")
    assert missing_modules(config) == ["no_such_package"]


@pytest.mark.parametrize(
    ("last", "status", "row"),
    [
        (3.0, 0, "| 4.00 | 3.00 | yes |"),
        (5.0, 1, "| 4.00 | 5.00 | **no** |"),
        (float("nan"), 1, ""),
    ],
    ids=["falls", "rises", "is NaN"],
)
def test_report_fails_if_a_loss_does_not_fall(last, status, row, monkeypatch, capsys):
    """Quarters of two epochs of eight steps each: the first two steps, and the last two."""
    losses = [3.0, 5.0, *[99.0] * 12, last + 1, last - 1]
    monkeypatch.setattr(mixed_report, "train", lambda *_: losses)
    monkeypatch.setattr(mixed_report, "write_shapes", lambda *_: None)
    names = list(CONFIGS)[-2:]
    assert mixed_report.main([str(CONFIGS[name]) for name in names]) == status
    printed = capsys.readouterr().out
    assert all(f"| {name} {row}" in printed for name in names)
