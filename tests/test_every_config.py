"""Every shipped config loads, is named as mim needs it, and builds what it describes."""

import re
from collections import Counter

import pytest
import torch
import yaml
from mmdet.registry import HOOKS, MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from support.golden import ROOT
from support.models import make_batch, total

CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.py") if "_base_" not in path.parts)
METAFILES = sorted((ROOT / "configs").rglob("metafile.yml"))
NAME = re.compile(r"[a-z0-9-]+(_[a-z0-9-]+)+")

each_config = pytest.mark.parametrize(
    "path", CONFIGS, ids=[str(path.relative_to(ROOT / "configs")) for path in CONFIGS]
)


def test_there_are_configs():
    assert len(CONFIGS) >= 4


def test_names_are_unique():
    """Mim finds a config by its stem."""
    assert [stem for stem, count in Counter(p.stem for p in CONFIGS).items() if count > 1] == []


@each_config
def test_name(path):
    """Lower case: mim lower-cases what it is asked for."""
    assert NAME.fullmatch(path.stem)


@each_config
def test_loads_and_dumps(path):
    config = Config.fromfile(path)
    assert config.default_scope == "mmdet"
    assert "fastdetr_mmdet" in config.custom_imports["imports"]
    again = Config.fromstring(config.pretty_text, ".py")
    assert again.model.to_dict() == config.model.to_dict()


@each_config
def test_classes_agree_with_the_head(path):
    config = Config.fromfile(path)
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        dataset = loader.dataset
        while "dataset" in dataset:
            dataset = dataset.dataset
        classes = dataset.get("metainfo", {}).get("classes")
        expected = 80 if classes is None else len(classes)
        assert config.model.bbox_head.num_classes == expected


@each_config
def test_builds_and_trains(path):
    """Every parameter of the described model, at two layers of encoder and decoder."""
    config = Config.fromfile(path)
    model_config = config.model
    model_config.backbone.init_cfg = None
    for part in ("encoder", "decoder"):
        if model_config.transformer.get(part):
            model_config.transformer[part].num_layers = min(
                2, model_config.transformer[part].num_layers
            )
    torch.manual_seed(0)
    model = MODELS.build(model_config)
    model.init_weights()
    model.train()
    batch = make_batch(((64, 96), (64, 64)), num_classes=model.bbox_head.num_classes)
    losses = model.loss(*batch)
    assert torch.isfinite(total(losses))
    total(losses).backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None] == []

    optimiser = build_optim_wrapper(model, config.optim_wrapper).optimizer
    optimised = {id(p) for group in optimiser.param_groups for p in group["params"]}
    assert {id(p) for p in trained.values()} <= optimised
    for hook in config.get("custom_hooks", []):
        HOOKS.build(hook)


@pytest.mark.parametrize("path", METAFILES, ids=[path.parent.name for path in METAFILES])
def test_metafile_lists_its_folder(path):
    models = yaml.safe_load(path.read_text())["Models"]
    listed = [ROOT / model["Config"] for model in models]
    assert sorted(listed) == sorted(path.parent.glob("*.py"))
    assert [model["Name"] for model in models] == [config.stem for config in listed]


def test_model_index_lists_the_metafiles():
    index = yaml.safe_load((ROOT / "model-index.yml").read_text())
    assert sorted(ROOT / name for name in index["Import"] or []) == METAFILES
