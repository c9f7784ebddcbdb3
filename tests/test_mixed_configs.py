"""The mixed configs have the parts of their names, and a report shows whether they learn."""

import mixed_report
import pytest
from mixed_report import MIXED, missing_modules
from mmengine.config import Config

CONFIGS = {path.stem: path for path in sorted(MIXED.glob("*.py"))}

# Expected types of parts, and number of the neck's outputs.
PARTS = {
    "sam-conditional-detr_r50_8xb2-50e_coco": (
        "FoldedResNet LearnedBoxQueries ConditionalDecoder SAMSemanticAligner ConditionalAttention",
        1,
    ),
    "smca-conditional-detr_r50_8xb2-50e_coco": (
        "FoldedResNet ConditionalDecoder GaussianPrior ConditionalAttention",
        1,
    ),
    "deformable-conditional-detr_r50_16xb2-50e_coco": (
        "FoldedResNet DeformableDetrEncoder ConditionalDecoder ConditionalAttention",
        4,
    ),
    "deformable-smca-detr_r50_8xb1-50e_coco": (
        "FoldedResNet DeformableDetrEncoder GaussianPrior SMCAAttention",
        3,
    ),
    "sam-detr-smca-twostage_r50_4xb4-50e_coco": (
        "FoldedResNet TwoStageQueries SAMSemanticAligner SalientGaussianPrior SAMAttention",
        1,
    ),
    "sam-detr-ms-refine-twostage_r50_8xb2-50e_coco": (
        "FoldedResNet TwoStageQueries SAMSemanticAligner SAMAttention",
        3,
    ),
    "relation-dino-4scale_r50_8xb2-12e_coco": (
        "FoldedResNet DeformableDetrEncoder DenoisingQueries RelationSelfAttention",
        4,
    ),
    "hybrid-dino-4scale_r50_8xb2-12e_coco": (
        "FoldedResNet HybridEncoder DenoisingQueries DeformableAttention",
        4,
    ),
    "deformable-detr-refine_swin-t_16xb2-50e_coco": (
        "SwinTransformer DeformableDetrEncoder DeformableAttention",
        4,
    ),
    "sam-detr-ms_convnext-t_8xb2-50e_coco": (
        "mmpretrain.ConvNeXt SAMSemanticAligner SAMAttention",
        3,
    ),
    "conditional-detr_timm-focalnet-t_8xb2-50e_coco": (
        "mmpretrain.TIMMBackbone ConditionalDecoder ConditionalAttention",
        1,
    ),
}
each_config = pytest.mark.parametrize("name", CONFIGS)


def test_every_mixed_config_is_described():
    assert set(PARTS) == set(CONFIGS)
    text = (MIXED / "README.md").read_text()
    assert [name for name in CONFIGS if f"]({name}.py)" not in text] == []


@each_config
def test_is_at_most_ten_lines(name):
    lines = [line.strip() for line in CONFIGS[name].read_text().splitlines()]
    assert len([line for line in lines if line and not line.startswith("#")]) <= 10


def types(part):
    """Types of a config and all configs in it."""
    if isinstance(part, dict):
        own = {part["type"]} if "type" in part else set()
        return own.union(*map(types, part.values()))
    return set().union(*map(types, part)) if isinstance(part, (list, tuple)) else set()


@each_config
def test_has_the_parts_of_its_name(name):
    """Without the config's imports, which may not be installed."""
    config = Config.fromfile(CONFIGS[name], import_custom_modules=False)
    model, (parts, num_levels) = config.model, PARTS[name]
    packages = {module.split(".")[0] for module in config.custom_imports["imports"]}
    foreign = ["mmpretrain"] * parts.startswith("mmpretrain")  # not a requirement
    assert packages == {"fastdetr_mmdet", *foreign}
    assert set(parts.split()) <= types(model)
    assert model.neck.num_outs == num_levels
    if "refine" in name or name.startswith("sam-conditional"):
        assert model.transformer.decoder.refine


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
