"""Every shipped config loads, has a name for mim, and builds its model."""

import ast
import copy
import functools
import importlib.util
import re

import pytest
import torch
from mmdet.registry import HOOKS, MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from support.golden import CASES, ROOT, GoldenCase
from support.models import make_batch
from support.small import small_config

from fastdetr_mmdet.checkpoints import convert_state_dict
from fastdetr_mmdet.utils import derived_keys  # noqa: F401 (patches Config)

CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.py") if "_base_" not in path.parts)

each_config = pytest.mark.parametrize(
    "path", CONFIGS, ids=[str(path.relative_to(ROOT / "configs")) for path in CONFIGS]
)


@functools.cache
def load(path):
    """Load without imports: two configs need mmpretrain, which may be missing."""
    return Config.fromfile(path, import_custom_modules=False)


def head_of(config):
    """The box head, also of Faster R-CNN."""
    return config.model.get("roi_head", config.model).bbox_head


def test_loads_and_dumps(tmp_path):
    """Dumps need plain data, which is tested for each config below."""
    config = load(CONFIGS[0])
    config.dump(tmp_path / "dumped.py")
    assert load(tmp_path / "dumped.py").to_dict() == config.to_dict()


@each_config
def test_is_plain_data(path):
    config = load(path).to_dict()
    assert ast.literal_eval(repr(config)) == config


@each_config
def test_imports_and_classes_agree_with_the_head(path):
    config = load(path)
    assert config.default_scope == "mmdet"
    assert "fastdetr_mmdet" in config.custom_imports["imports"]
    assert config.custom_imports["allow_failed_imports"] is False
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        dataset = loader.dataset
        while "dataset" in dataset:
            dataset = dataset.dataset
        classes = dataset.get("metainfo", {}).get("classes")
        expected = 80 if classes is None else len(classes)
        assert head_of(config).num_classes == expected


@each_config
def test_has_the_hooks(path):
    """The demo saves less often, because its epochs take seconds."""
    config = load(path)
    hooks = config.default_hooks
    assert hooks.exact_resume.type == "ExactResumeHook"
    assert hooks.resume_check.type == "ResumeCheckHook"
    assert hooks.checkpoint.type == "AtomicCheckpointHook"
    assert hooks.checkpoint.interval == (4 if path.parent.name == "demo" else 1)
    checks = ["DatasetClassesCheckHook", "DatasetCheckHook", "NumbersCheckHook"]
    assert [hook.type for hook in config.custom_hooks][:3] == checks


@each_config
def test_schedules_follow_max_epochs(path):
    """Before, a milestone of 40 stayed with 20 epochs."""
    config, before = copy.deepcopy(load(path)), load(path)
    config.merge_from_dict(dict(max_epochs=20))
    assert config.train_cfg.max_epochs == 20
    for old, new in zip(before.param_scheduler, config.param_scheduler, strict=True):
        assert new.get("by_epoch", True) is False or "end" not in new
        shares = [step / before.max_epochs for step in old.get("milestones", ())]
        assert [step / 20 for step in new.get("milestones", ())] == pytest.approx(shares, abs=0.04)


# Configs with a golden case's model, whose weights also load into these.
SAME_MODEL = {recipe.config: name for name, recipe in CASES.items() if not recipe.overrides} | {
    "conditional_detr/conditional-detr_r101-dc5_8xb1-50e_coco.py": "conditional_r101",
    "smca_detr/smca-detr_r50_8xb2-108e_coco.py": "smca_ss_type3",
    "sam_detr/sam-detr_r50-dc5_8xb1-12e_coco.py": "sam_r50_e12",
    "sam_detr/sam-detr-smca_r50-dc5_8xb1-12e_coco.py": "sam_r50_smca_e12",
    "sam_detr/sam-detr-ms_r50_8xb2-12e_coco.py": "sam_ms_e50",
    "sam_detr/sam-detr-ms-smca_r50_8xb2-12e_coco.py": "sam_ms_smca_e50",
}
# The paper's multi-scale SMCA has no published code, so no official weights.
NO_OFFICIAL_CODE = {"smca_detr/smca-detr-ms_r50_8xb1-50e_coco.py"}


def test_every_official_model_has_weights_to_load():
    official = ("deformable_detr", "conditional_detr", "smca_detr", "sam_detr")
    ours = {str(p.relative_to(ROOT / "configs")) for p in CONFIGS if p.parent.name in official}
    assert ours == set(SAME_MODEL) | NO_OFFICIAL_CODE


@pytest.mark.parametrize("config", SAME_MODEL)
def test_has_the_official_parameters(config):
    """Names and shapes; test_parity.py compares results."""
    case = GoldenCase(SAME_MODEL[config])
    model = Config.fromfile(ROOT / "configs" / config).model
    model.num_queries = case.manifest["num_queries"]
    model.bbox_head.num_classes = case.num_classes
    with torch.device("meta"):
        ours = MODELS.build(model).state_dict()
    zero = torch.zeros(())
    official = {name: zero.expand(*shape) for name, shape, *_ in case.manifest["state_dict"]}
    converted = convert_state_dict(official, case.method)
    counters = {name for name in ours if name.endswith("num_batches_tracked")}  # frozen: unused
    assert {k: v.shape for k, v in converted.items()} == {
        k: v.shape for k, v in ours.items() if k not in counters
    }


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(
            path,
            id=str(path.relative_to(ROOT / "configs")),
            # epochs and fine-tuning do not change the model
            marks=[pytest.mark.slow]
            if re.search("r101|dc5|12e|36e|108e|finetune|lite0_conv", path.stem)
            else [],
        )
        for path in CONFIGS
    ],
)
def test_trains(path):
    """A small version of its model: a step of the config's optimizer, and a prediction."""
    config = load(path)
    for module in config.custom_imports["imports"]:
        if importlib.util.find_spec(package := module.split(".")[0]) is None:
            pytest.skip(f"{package} is not installed (configs/mixed/README.md)")
    config = Config.fromfile(path)
    name = str(path.relative_to(ROOT / "configs").with_suffix(""))
    own = re.search("ResNet|Swin", config.model.backbone.type)
    if own and "transformer" in config.model:
        config.model = small_config(name)
    config.model.backbone.pop("init_cfg", None)
    if "pretrained" in config.model.backbone:  # timm
        config.model.backbone.pretrained = False
    model = MODELS.build(config.model)
    model.init_weights()
    optimiser = build_optim_wrapper(model.train(), config.optim_wrapper)
    optimised = {id(p) for group in optimiser.optimizer.param_groups for p in group["params"]}
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {id(p) for p in trained.values()} <= optimised

    # padded, and one image without objects
    batch = make_batch(
        ((64, 96), (96, 64)), objects=(3, 0), num_classes=head_of(config).num_classes
    )
    loss, _ = model.parse_losses(model.loss(*batch))
    assert torch.isfinite(loss)
    loss.backward()
    assert [name for name, p in trained.items() if p.grad is None] == []
    optimiser.step()
    assert all(torch.isfinite(p).all() for p in trained.values())
    with torch.no_grad():
        for sample in model.eval().predict(*batch):
            assert torch.isfinite(sample.pred_instances.bboxes).all()
    for hook in config.get("custom_hooks", []):
        HOOKS.build(hook)


@pytest.mark.parametrize(
    "config, num_classes, expected",
    [
        ("smca_detr/smca-detr-ms-conv_r50_8xb1-50e_coco.py", 92, 40_763_514),
        ("sam_detr/sam-detr_r50_4xb4-12e_coco.py", 91, 58_074_058),
    ],
)
def test_trained_parameters_are_as_many_as_in_the_official_logs(config, num_classes, expected):
    model = Config.fromfile(ROOT / "configs" / config).model
    model.bbox_head.num_classes = num_classes
    with torch.device("meta"):
        trained = [p.numel() for p in MODELS.build(model).parameters() if p.requires_grad]
    assert sum(trained) == expected
