"""Configs get a common budget, and wrong data is found before a run starts."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config
from support.golden import ROOT

from fastdetr_mmdet.convergence.budget import apply_budget, check_data
from fastdetr_mmdet.utils.cli import UsageError

CONFIGS = ROOT / "configs"


def test_epochs_stretch_the_schedule_and_a_run_has_what_it_needs():
    """Milestones keep their share of training; a warm-up in iterations keeps its length."""
    path = CONFIGS / "sam_detr/sam-detr_r50_4xb4-12e_coco.py"
    assert apply_budget(path, 12, 0).param_scheduler == Config.fromfile(path).param_scheduler
    cfg = apply_budget(path, epochs=6, seed=3, val_interval=2)
    assert cfg.train_cfg.max_epochs == cfg.max_epochs == 6
    assert cfg.train_cfg.val_interval == 2
    assert cfg.param_scheduler[0].milestones == [5] and "end" not in cfg.param_scheduler[0]
    assert cfg.randomness.seed == 3

    cfg = apply_budget(CONFIGS / "demo/fast-detr_r18_shapes.py", epochs=52, seed=0)
    warmup, cosine = cfg.param_scheduler
    assert warmup.end == 384 and "end" not in cosine  # it ends with the training
    assert cfg.default_hooks.checkpoint.type == "fastdetr_mmdet.AtomicCheckpointHook"
    assert cfg.default_hooks.checkpoint.interval == 1
    assert cfg.default_hooks.exact_resume.type == "fastdetr_mmdet.ExactResumeHook"
    hooks = [hook.type for hook in cfg.custom_hooks]  # the config's own stay
    assert hooks[-1] == "fastdetr_mmdet.TrainingProgressHook" and "DatasetCheckHook" in hooks


def test_data_root_goes_everywhere():
    path = CONFIGS / "convergence/detr_r18_convergence.py"
    options = {"image_scale": [64, 48], "classes": ["cat", "dog"]}
    cfg = apply_budget(path, 1, 0, data_root="data/pets", options=options)
    assert cfg.train_dataloader.dataset.data_root == "data/pets"
    assert cfg.val_evaluator.ann_file == "data/pets/val.json"
    assert cfg.train_dataloader.dataset.pipeline[2].scale == (64, 48)
    assert cfg.model.bbox_head.num_classes == 2


MMDET = "train_cfg = dict(max_epochs=3)\nval_evaluator = dict(type='CocoMetric')\n"


@pytest.mark.parametrize(
    "text, options, key",
    [
        (MMDET, {}, None),
        (MMDET, dict(data_root="data/x"), "--data-root"),
        ("train_cfg = dict(max_iters=3)\nval_evaluator = dict()\n", {}, "max_epochs"),
        ("train_cfg = dict(max_epochs=3)\n", {}, "val_evaluator"),
        (None, {}, r"config\.py"),
    ],
)
def test_configs_without_this_package(tmp_path, text, options, key):
    path = tmp_path / "config.py"
    if text is not None:
        path.write_text(text)
    if key is None:
        assert apply_budget(path, 2, 0).custom_imports.imports == ["fastdetr_mmdet"]
    else:
        with pytest.raises(UsageError, match=key):
            apply_budget(path, epochs=2, seed=0, **options)


def with_data(root, classes=("cat",), wrapped=False, **more):
    """A config that validates on the training data."""
    dataset = dict(type="CocoDataset", data_root=str(root), ann_file="train.json")
    dataset |= dict(metainfo=dict(classes=classes), pipeline=[], **more)
    if wrapped:
        dataset = dict(type="RepeatDataset", times=2, dataset=dataset)
    return Config(
        dict(train_dataloader=dict(dataset=dataset), val_dataloader=dict(dataset=dataset))
    )


def annotations(root, *names):
    categories = [{"id": n, "name": name} for n, name in enumerate(names)]
    content = {"images": [], "annotations": [], "categories": categories}
    (root / "train.json").write_text(json.dumps(content))
    return root


def refusal(cfg):
    with pytest.raises(UsageError) as info:
        check_data(cfg, Path("own.py"))
    return str(info.value)


def test_data_that_is_there(tmp_path):
    for cfg in (
        with_data(annotations(tmp_path, "nine", "ten"), ("ten",)),
        with_data("nowhere", backend_args=dict(backend="petrel")),
        Config(),
    ):
        check_data(cfg, Path("own.py"))


@pytest.mark.parametrize("wrapped", [False, True])
def test_missing_file_and_other_classes(tmp_path, wrapped):
    text = refusal(with_data(tmp_path, wrapped=wrapped))
    for word in ("own.py", str(tmp_path / "train.json"), "--data-root", "train_ann="):
        assert word in text
    text = refusal(with_data(annotations(tmp_path, "nine", "ten"), wrapped=wrapped))
    assert "'cat'" in text and "'nine', 'ten'" in text and "classes=nine,ten " in text


def test_other_refusals(tmp_path):
    """One class takes a comma, without which --cfg-options makes a string."""
    assert "petrel" in refusal(with_data("s3://bucket"))  # cannot be built
    assert "classes=ten, " in refusal(with_data(annotations(tmp_path, "ten")))
    assert refusal(Config(dict(classes="nine"))).endswith("classes=nine,")
    (tmp_path / "train.json").write_text("[]")
    assert "train.json" in refusal(with_data(tmp_path))
