"""Exported weights are read by other codes, and convert back bit-identically."""

import json

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from support.dino import draw
from support.golden import CASES, GoldenCase
from support.hf import CASES as HUB
from support.hf import compute, run
from support.small import small_config
from support.tolerances import assert_near, assert_same

from fastdetr_mmdet.checkpoints import (
    CheckpointError,
    convert_checkpoint,
    convert_state_dict,
    shipped_configs,
)
from fastdetr_mmdet.checkpoints.convert import main
from fastdetr_mmdet.checkpoints.exporting import export_checkpoint
from fastdetr_mmdet.checkpoints.state_dicts import restore_state_dict
from fastdetr_mmdet.utils.cli import UsageError

KINDS = [name for name in HUB if name != "detr"]


@pytest.mark.parametrize("name", CASES)
def test_names_there_and_back(name, hollow):
    """Official names, including copies, and Hugging Face's names convert in both directions."""
    official, method = hollow(name), GoldenCase(name).method
    ours = convert_state_dict(official, method)
    assert_same(restore_state_dict(ours, method), official)
    if method in ("deformable_detr", "conditional_detr"):
        assert_same(convert_state_dict(restore_state_dict(ours, f"hf_{method}"), "hf"), ours)


@pytest.fixture
def trained(only, tmp_path):
    """Writes a small model's checkpoint like a training."""

    def write(name, num_classes=5, meta=None, **changes):
        config = only(name, bbox_head__num_classes=num_classes, **changes)
        shapes = {k: tuple(v.shape) for k, v in MODELS.build(config.model).state_dict().items()}
        weights = {key: draw(key, shape) for key, shape in shapes.items()}
        src = tmp_path / "epoch_1.pth"
        torch.save(dict(state_dict=weights, meta=meta or {}), src)
        return src, weights

    return write


@pytest.mark.parametrize(
    ("to", "classes", "name"),
    [
        ("hf", 80, "single_scale"),
        ("hf", 80, "two_stage"),
        ("hf", 80, "conditional"),
        ("hf", 5, "refine"),
        ("official", 80, "two_stage"),
        ("official", 80, "conditional"),
    ],
)
def test_files_there_and_back(to, classes, name, trained, tmp_path, dst):
    """COCO's 80 labels become category ids; gaps are never detected."""
    src, weights = trained(name, classes)
    written = tmp_path / "written"
    assert main([str(src), str(written), "--to", to]) == 0
    method = "conditional_detr" if name == "conditional" else "deformable_detr"
    report = convert_checkpoint(written, dst, "hf" if to == "hf" else method)
    assert report.found_classes == (91 if classes == 80 else classes)
    assert report.num_classes == classes and not report.options
    back = torch.load(dst, weights_only=True)["state_dict"]
    counted = {k: v for k, v in weights.items() if k.endswith(".num_batches_tracked")}
    assert_same(back | counted, weights)
    if to == "hf":
        names = json.loads((written / "config.json").read_text())["id2label"]
        assert [names["0"], names["1"]] == (
            ["N/A", "person"] if classes == 80 else ["LABEL_0", "LABEL_1"]
        )
    elif name == "conditional":
        head = torch.load(written, weights_only=True)["model"]
        gaps = [0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
        assert (head["class_embed.bias"] == -100).nonzero().flatten().tolist() == gaps
        assert not head["class_embed.weight"][gaps].any()


@pytest.mark.parametrize(
    ("meta", "heads"),
    [
        # the config that mmengine stores, or the options of a conversion
        (dict(cfg="model = dict(transformer=dict(encoder=dict(num_heads=2)))"), (2, 4)),
        (dict(options={"model.transformer.decoder.num_heads": 2}), (4, 2)),
        (dict(cfg=7, options="x", configs=3), (4, 4)),
    ],
)
def test_heads_are_those_of_the_training(meta, heads, trained, tmp_path):
    src, _ = trained("conditional", meta=meta)
    export_checkpoint(src, tmp_path / "hub", "hf")
    told = json.loads((tmp_path / "hub" / "config.json").read_text())
    assert (told["encoder_attention_heads"], told["decoder_attention_heads"]) == heads


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda w, m: w.update(extra=torch.zeros(1)), "extra"),
        (lambda w, m: w.pop("neck.convs.0.conv.bias"), "neck.convs.0.conv.bias"),
        (lambda w, m: m.update(cfg="import os"), "holds code"),
        (lambda w, m: m.update(configs=["a-dc5_b.py"]), "DC5"),
    ],
)
def test_what_no_code_has(change, named, trained, tmp_path, only):
    src, weights = trained("conditional", backbone__type="DilatedResNet")
    meta = {}
    change(weights, meta)
    torch.save(dict(state_dict=weights, meta=meta), src)
    with pytest.raises(CheckpointError, match=named) as error:
        export_checkpoint(src, tmp_path / "hub", "hf")
    assert str(src) in str(error.value)
    assert sorted(tmp_path.iterdir()) == [src]


@pytest.mark.parametrize(
    ("name", "to", "named"),
    [
        ("smca_detr/smca-detr-ms_r50_8xb1-50e_coco", "official", "smca-detr-ms-conv"),
        ("deformable_detr/deformable-detr-single-scale_r50-dc5_16xb2-50e_coco", "hf", "DC5"),
        ("conditional_detr/conditional-detr_r50-dc5_8xb1-50e_coco", "hf", "DC5"),
    ],
)
def test_shipped_models_that_no_code_has(name, to, named, monkeypatch, tmp_path):
    config = Config(dict(model=small_config(name), train_cfg=dict(max_epochs=1)))
    found = {name.split("/")[0]: {f"configs/{name}.py": config}}
    monkeypatch.setattr(shipped_configs, "shipped_configs", lambda method: found.get(method, {}))
    weights = MODELS.build(config.model).state_dict()
    torch.save(dict(state_dict=weights, meta=dict(cfg=config.pretty_text)), tmp_path / "it.pth")
    with pytest.raises(CheckpointError, match=named):
        export_checkpoint(tmp_path / "it.pth", tmp_path / "out", to)


def test_folders_are_not_overwritten(trained, tmp_path):
    src, _ = trained("conditional")
    (tmp_path / "hub").mkdir()
    with pytest.raises(UsageError, match="hub"):
        export_checkpoint(src, tmp_path / "hub", "hf")
    with pytest.raises(SystemExit):
        main([str(src), "there", "--to", "hf", "--classes", "80"])


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_installed_transformers_computes_the_same(name, trained, tmp_path):
    transformers = pytest.importorskip("transformers", reason="not installed")
    src, weights = trained(name)
    export_checkpoint(src, tmp_path / "hub", "hf")
    kind = json.loads((tmp_path / "hub" / "config.json").read_text())["architectures"][0]
    model = getattr(transformers, kind).from_pretrained(tmp_path / "hub").eval()
    with torch.no_grad():
        found = run(name, model)
    for key, value in compute(name, weights).items():
        assert_near(found[key], value)
