"""Configs on a common budget, and wrong data found before a run is started."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config
from support.golden import ROOT

from fastdetr_mmdet.convergence.budget import apply_budget, check_data
from fastdetr_mmdet.utils.cli import UsageError

CONFIGS = ROOT / "configs"


def test_epochs_stretch_the_schedule():
    """Milestones keep their share of training, a warm-up in iterations its length."""
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
    with pytest.raises(UsageError, match="--data-root"):
        apply_budget(path, epochs=2, seed=0, data_root="data/x")


@pytest.mark.parametrize(
    "text, key",
    [
        ("train_cfg = dict(max_iters=3)\nval_evaluator = dict()\n", "max_epochs"),
        ("train_cfg = dict(max_epochs=3)\n", "val_evaluator"),
        (None, r"config\.py"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, text, key):
    if text is not None:
        (tmp_path / "config.py").write_text(text)
    with pytest.raises(UsageError, match=key):
        apply_budget(tmp_path / "config.py", epochs=2, seed=0)


def with_data(root, classes=("cat",), wrapped=False, **more):
    """A config that lists its derived keys; the validation's data are the training's."""
    dataset = dict(data_root=str(root), ann_file="train.json", metainfo=dict(classes=classes))
    dataset.update(more)
    if wrapped:
        dataset = dict(type="RepeatDataset", times=2, dataset=dataset)
    derived = {"data_root": "{data_root}", "metainfo.classes": "{classes}"}
    return Config(
        dict(
            train_dataloader=dict(dataset=dataset),
            val_dataloader=dict(dataset=dataset),
            train_ann="train.json",
            derived_keys={f"train_dataloader.dataset.{k}": v for k, v in derived.items()},
        )
    )


@pytest.fixture
def root(tmp_path):
    categories = [{"id": 1, "name": "nine"}, {"id": 2, "name": "ten"}]
    (tmp_path / "train.json").write_text(json.dumps({"categories": categories}))
    return tmp_path


def refusal(cfg):
    with pytest.raises(UsageError) as info:
        check_data(cfg, Path("own.py"))
    return str(info.value)


def test_data_that_is_there(root):
    for cfg in (
        with_data(root, ("ten",)),
        with_data("s3://bucket"),
        with_data("nowhere", backend_args=dict(backend="petrel")),
        Config(),
    ):
        check_data(cfg, Path("own.py"))


@pytest.mark.parametrize("wrapped", [False, True])
def test_missing_file(root, wrapped):
    text = refusal(with_data(root / "no", wrapped=wrapped))
    for word in ("own.py", str(root / "no" / "train.json"), "--data-root", "train_ann="):
        assert word in text
    cfg = with_data(root / "no")
    cfg.derived_keys = {}
    assert "train_dataloader.dataset" in refusal(cfg) and "--data-root" not in refusal(cfg)


@pytest.mark.parametrize("wrapped", [False, True])
def test_other_classes(root, wrapped):
    text = refusal(with_data(root, wrapped=wrapped))
    assert "cat" in text and "nine, ten" in text
    assert text.endswith("--cfg-options classes=nine,ten")
    assert refusal(with_data(root, "nine")).endswith("classes=nine,")


@pytest.mark.parametrize(
    ("names", "advice"),
    [(["ten"], "classes=ten,"), (["a ten", "nine"], "rename"), (["10", "9"], "rename")],
)
def test_advice_is_what_the_option_understands(tmp_path, names, advice):
    """--cfg-options drops spaces and takes digits for numbers."""
    file = tmp_path / "train.json"
    file.write_text(json.dumps({"categories": [{"name": name} for name in names]}))
    assert advice in refusal(with_data(tmp_path))


def test_a_file_that_is_not_coco(root):
    (root / "train.json").write_text("[]")
    assert "train.json" in refusal(with_data(root))
