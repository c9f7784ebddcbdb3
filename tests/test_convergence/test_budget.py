"""Configs on a common budget."""

import pytest
from mmengine.config import Config
from support.golden import ROOT

from fastdetr_mmdet.convergence import apply_budget

CONFIGS = ROOT / "configs"


def test_epochs_stretch_the_schedule():
    """Milestones keep their share of training, a warm-up in iterations its length."""
    path = CONFIGS / "sam_detr/sam-detr_r50_4xb4-12e_coco.py"
    cfg = apply_budget(path, epochs=6, seed=3, val_interval=2)
    assert cfg.train_cfg.max_epochs == cfg.max_epochs == 6
    assert cfg.train_cfg.val_interval == 2
    assert cfg.param_scheduler[0].milestones == [5] and "end" not in cfg.param_scheduler[0]
    assert cfg.randomness.seed == 3

    cfg = apply_budget(CONFIGS / "demo/fast-detr_r18_shapes.py", epochs=52, seed=0)
    warmup, cosine = cfg.param_scheduler
    assert warmup.end == 384 and "end" not in cosine  # it ends with the training


def test_same_epochs_leave_the_schedule_alone():
    path = CONFIGS / "sam_detr/sam-detr_r50_4xb4-12e_coco.py"
    cfg = apply_budget(path, epochs=12, seed=0)
    assert cfg.param_scheduler == Config.fromfile(path).param_scheduler


def test_data_root_goes_everywhere():
    path = CONFIGS / "convergence/detr_r18_convergence.py"
    options = {"image_scale": [64, 48], "classes": ["cat", "dog"]}
    cfg = apply_budget(path, 1, 0, data_root="data/pets", options=options)
    assert cfg.train_dataloader.dataset.data_root == "data/pets"
    assert cfg.val_evaluator.ann_file == "data/pets/val.json"
    assert cfg.train_dataloader.dataset.pipeline[2].scale == (64, 48)
    assert cfg.model.bbox_head.num_classes == 2


def test_what_a_run_needs_is_there():
    """Also in a config that has other hooks of its own."""
    cfg = apply_budget(CONFIGS / "demo/fast-detr_r18_shapes.py", epochs=2, seed=0)
    assert cfg.default_hooks.checkpoint.type == "fastdetr_mmdet.AtomicCheckpointHook"
    assert cfg.default_hooks.checkpoint.interval == 1
    assert cfg.default_hooks.exact_resume.type == "fastdetr_mmdet.ExactResumeHook"
    hooks = [hook.type for hook in cfg.custom_hooks]
    assert hooks[-1] == "fastdetr_mmdet.TrainingProgressHook"
    assert "DatasetCheckHook" in hooks


def test_a_config_of_mmdet_alone(tmp_path):
    """Without our package in its imports and without hooks."""
    path = tmp_path / "plain.py"
    path.write_text("train_cfg = dict(max_epochs=3)\nval_evaluator = dict(type='CocoMetric')\n")
    cfg = apply_budget(path, epochs=2, seed=0)
    assert cfg.custom_imports.imports == ["fastdetr_mmdet"]
    with pytest.raises(ValueError, match=r"does not take --data-root.*leave --data-root out"):
        apply_budget(path, epochs=2, seed=0, data_root="data/x")


@pytest.mark.parametrize(
    "text, message",
    [
        ("train_cfg = dict(max_iters=3)\nval_evaluator = dict()\n", "does not train by epoch"),
        ("train_cfg = dict(max_epochs=3)\n", "has no val_evaluator"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, text, message):
    (tmp_path / "config.py").write_text(text)
    with pytest.raises(ValueError, match=message):
        apply_budget(tmp_path / "config.py", epochs=2, seed=0)


def test_missing_config():
    with pytest.raises(FileNotFoundError, match=r"no config nowhere\.py"):
        apply_budget("nowhere.py", epochs=1, seed=0)
