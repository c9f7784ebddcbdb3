"""The command lines of mim and mmdet's tools work with the shipped configs.

What `mim train` starts, and mmdet scripts in which only the config imports this package, run in
fresh processes. Other tools run in the tests' process.
"""

import json
import pickle
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.runner import checkpoint as loaders
from support.runs import (
    BATCH_SIZE,
    ITERS,
    ROOT,
    TRAIN_IMAGES,
    VAL_IMAGES,
    fresh_processes,
    log_rows,
    newest_metrics,
    once,
    own_visualizer,
    pictures,
    run_tool,
)

from fastdetr_mmdet import FastDETR
from fastdetr_mmdet.checkpoints.guard import UNGUARDED
from fastdetr_mmdet.engine.mmdet_tools import find_script
from fastdetr_mmdet.utils.run_history import RunHistory

# A user's dataset by options only: two of the six classes.
OWN_CLASSES = ("disc", "star")
DATA_OPTIONS = (
    "train_ann=annotations/train.json",
    "train_images=train/",
    "val_ann=annotations/val.json",
    "val_images=val/",
    "classes=['disc','star']",
    "image_scale=(64,64)",
    "train_cfg.max_epochs=1",
    f"train_dataloader.batch_size={BATCH_SIZE}",
)


def weights(checkpoint):
    return torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]


# --------------------------------------------------------------------------------------------------
# mim


@pytest.mark.smoke
def test_mim_trains(tiny_run):
    rows = log_rows(tiny_run.work_dir)
    assert [(row["epoch"], row["iter"]) for row in rows] == [
        (1 + i // ITERS, i + 1) for i in range(2 * ITERS)
    ]
    assert np.isfinite([row["loss"] for row in rows]).all()
    assert {path.name for path in tiny_run.work_dir.glob("*.pth")} == {"epoch_1.pth", "epoch_2.pth"}
    before, after = weights(tiny_run.work_dir / "epoch_1.pth"), weights(tiny_run.checkpoint)
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert any(name.startswith("backbone.") for name in moved)
    assert any(name.startswith("bbox_head.") for name in moved)


@pytest.mark.smoke
def test_mim_tests(tiny_run):
    """`mim test` of the last checkpoint gives the last validation's metrics."""
    tested = newest_metrics(tiny_run.work_dir)
    validated = RunHistory.read(tiny_run.work_dir).metrics
    for name in ("coco/bbox_mAP", "coco/bbox_mAP_50"):
        last = validated[name][-1]
        assert (last.progress, last.value) == (2.0, tested[name])
        assert 0 <= tested[name] <= 1


def test_visualization_hook_draws(tiny_run):
    """`--show-dir` turns on DetVisualizationHook."""
    assert len(pictures(tiny_run.show_dir)) == VAL_IMAGES


@pytest.mark.smoke
def test_checkpoints_load_without_running_code(tiny_run):
    """Including mmengine's history of the run."""
    checkpoint = torch.load(tiny_run.checkpoint, weights_only=True)
    assert "train/loss" in checkpoint["message_hub"]["log_scalars"]
    assert checkpoint["meta"]["dataset_meta"]["classes"][-1] == "ring"
    assert checkpoint["optimizer"]["state"]


# --------------------------------------------------------------------------------------------------
# Programs that do not know this package: only the config imports it

INFER = """\
import sys
from mmdet.apis import DetInferencer

config, checkpoint, images, out = sys.argv[1:]
inferencer = DetInferencer(config, checkpoint, device='cpu')
inferencer(images, out_dir=out, no_save_pred=False, pred_score_thr=0.01)
"""
READ = """\
import json
import sys
from mmengine.config import Config

config = Config.fromfile(sys.argv[1])
dataset = config.train_dataloader.dataset
print(json.dumps([dataset.data_root, config.val_evaluator.ann_file]), file=sys.stderr)
"""
IMPORT = f"""\
import os
import torch
from mmdet.apis import det_inferencer, inference
from mmdet.models.backbones import ResNet, SwinTransformer
from mmengine.config import Config
from mmengine.dist import utils
from mmengine.fileio.backends.registry_utils import backends
from mmengine.infer import infer
from mmengine.model import BaseModule, MMDistributedDataParallel
from mmengine.model.weight_init import PretrainedInit
from mmengine.runner import checkpoint

def owners():  # a new scheme makes mmengine sort them into a new dict
    modules = Config, utils, MMDistributedDataParallel, checkpoint, torch
    modules += inference, infer, det_inferencer, BaseModule, PretrainedInit, ResNet, SwinTransformer
    return [*map(vars, modules), backends, checkpoint.CheckpointLoader._schemes]

before = [dict(owner) for owner in owners()]

def changed():  # classes get no new methods either; modules and dicts may hold more
    return sorted(
        name
        for owner, old in zip(owners(), before)
        for name, value in owner.items()
        if value is not old.get(name, value if isinstance(owner, dict) else None)
    )

os.environ['{UNGUARDED}'] = '1'
import fastdetr_mmdet
print('with the switch', changed())
del os.environ['{UNGUARDED}']
fastdetr_mmdet.guard_checkpoints()
print('without', changed())
"""


@pytest.fixture(scope="session")
def strangers(tmp_path_factory, tiny_run) -> Path:
    """Results of mmdet's tools and a user's scripts, each in a fresh process."""

    def make(folder: Path) -> None:
        resumed = folder / "resumed"
        resumed.mkdir()
        shutil.copy(tiny_run.work_dir / "epoch_1.pth", resumed)
        (resumed / "last_checkpoint").write_text(str(resumed / "epoch_1.pth"))
        options = ["--cfg-options", f"data_root={tiny_run.data_root}/"]
        train = [find_script("train.py"), tiny_run.config, "--work-dir", resumed, "--resume"]

        (folder / "user.py").write_text(
            f"_base_ = '{(tiny_run.work_dir / 'tiny.py').as_posix()}'\n"  # the runner's dump
            "custom_imports = dict(imports=['json'], allow_failed_imports=False)\n"
            "custom_hooks = []\n"
        )
        test = [find_script("test.py"), folder / "user.py", tiny_run.checkpoint]
        test += ["--work-dir", folder / "tested", "--out", folder / "predictions.pkl"]

        (folder / "infer.py").write_text(INFER)
        images = tiny_run.data_root / "val"
        infer = [folder / "infer.py", tiny_run.config, tiny_run.checkpoint, images, folder / "out"]

        template = ROOT / "configs/custom/fast-detr_r18_custom.py"
        (folder / "child.py").write_text(f"_base_ = {str(template)!r}\ndata_root = 'other'\n")
        (folder / "read.py").write_text(READ)
        (folder / "import.py").write_text(IMPORT)
        fresh_processes(
            {
                folder / "train.log": [*train, *options],
                folder / "test.log": test,
                folder / "infer.log": infer,
                folder / "read.log": [folder / "read.py", folder / "child.py"],
                folder / "import.log": [folder / "import.py"],
            }
        )

    return once(tmp_path_factory, "strangers", make)


@pytest.mark.smoke
def test_plain_mmdet_train_resumes(tiny_run, strangers):
    """A run that is interrupted after epoch 1 and resumed equals the uninterrupted one."""
    whole = [row for row in log_rows(tiny_run.work_dir) if row["epoch"] == 2]
    resumed = log_rows(strangers / "resumed")
    for key in ("epoch", "iter", "lr"):
        assert [row[key] for row in resumed] == [row[key] for row in whole]
    expected = weights(tiny_run.checkpoint)
    for name, tensor in weights(strangers / "resumed/epoch_2.pth").items():
        # Adam without its state would move every weight by about lr = 1e-4 at first.
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6, msg=name)


def test_plain_mmdet_test_with_own_custom_imports(tiny_run, strangers):
    """custom_imports replaces the shipped one; the model's full name imports the package."""
    found = newest_metrics(strangers / "tested")["coco/bbox_mAP"]
    assert found == newest_metrics(tiny_run.work_dir)["coco/bbox_mAP"]
    predictions = pickle.loads((strangers / "predictions.pkl").read_bytes())
    assert len(predictions) == VAL_IMAGES
    assert predictions[0]["pred_instances"]["bboxes"].shape == (60, 4)  # 10 queries x 6 classes


@pytest.mark.smoke
def test_inferencer_of_a_program_that_imports_mmdet_alone(strangers):
    assert len(pictures(strangers / "out/vis")) == VAL_IMAGES
    assert len(list((strangers / "out/preds").glob("*.json"))) == VAL_IMAGES


def test_a_config_that_inherits_a_template(strangers):
    """Its data_root reaches all derived keys, because the template imports derived_keys."""
    root, file = json.loads((strangers / "read.log").read_text().splitlines()[-1])
    assert root == "other" and file.startswith("other/")


@pytest.mark.smoke
def test_import_and_its_switch(strangers):
    """Importing guards loading; with the switch, mmengine and mmdet are unchanged."""
    printed = (strangers / "import.log").read_text()
    assert "with the switch []\n" in printed
    onedl = ["_safe_torch_load"] if hasattr(loaders, "_safe_torch_load") else []
    loading = ["_load_checkpoint", "_load_checkpoint_to_model", *onedl]
    assert f"without {['', *loading, 'load_checkpoint', 'load_url']}\n" in printed


def test_test_time_augmentation(tiny_run, tmp_path, monkeypatch):
    options = ["--cfg-options", f"data_root={tiny_run.data_root}/", own_visualizer()]
    arguments = [tiny_run.config, tiny_run.checkpoint, "--tta", "--work-dir", tmp_path]
    with pytest.warns(UserWarning, match="tta_"):  # mmdet warns of its default
        run_tool(monkeypatch, "test.py", *arguments, *options)
    assert 0 <= newest_metrics(tmp_path)["coco/bbox_mAP"] <= 1


# --------------------------------------------------------------------------------------------------
# --amp


@pytest.fixture
def autocast_dtypes(monkeypatch):
    """The dtype of autocast at every training step; None if off."""
    seen = []
    loss = FastDETR.loss

    def spy(self, batch_inputs, batch_data_samples):
        kind = batch_inputs.device.type
        on = torch.is_autocast_enabled(kind)
        seen.append(torch.get_autocast_dtype(kind) if on else None)
        return loss(self, batch_inputs, batch_data_samples)

    monkeypatch.setattr(FastDETR, "loss", spy)
    return seen


def train_with_amp(run, work_dir, monkeypatch):
    options = ["--cfg-options", f"data_root={run.data_root}/", own_visualizer()]
    run_tool(monkeypatch, "train.py", run.config, "--amp", "--work-dir", work_dir, *options)
    losses = [row["loss"] for row in log_rows(work_dir)]
    assert len(losses) == 2 * ITERS
    assert np.isfinite(losses).all()
    np.testing.assert_allclose(losses[0], log_rows(run.work_dir)[0]["loss"], rtol=0.05)
    saved = weights(work_dir / "epoch_2.pth")
    assert {x.dtype for x in saved.values() if x.is_floating_point()} == {torch.float32}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_amp(tiny_run, tmp_path, monkeypatch, autocast_dtypes):
    train_with_amp(tiny_run, tmp_path, monkeypatch)
    assert autocast_dtypes == [torch.float16] * 2 * ITERS


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="with a CUDA device test_amp runs the same")
def test_amp_without_gpu(tiny_run, tmp_path, monkeypatch, autocast_dtypes):
    """mmengine refuses AMP on a CPU; without that check, --amp trains in bfloat16."""
    with pytest.raises(AssertionError, match="only available training on gpu"):
        train_with_amp(tiny_run, tmp_path / "refused", monkeypatch)
    monkeypatch.setattr(amp_optimizer_wrapper, "is_cuda_available", lambda: True)
    with pytest.warns(UserWarning, match="CUDA is not available"):  # the loss scaler turns idle
        train_with_amp(tiny_run, tmp_path / "trained", monkeypatch)
    assert autocast_dtypes == [torch.bfloat16] * 2 * ITERS


# --------------------------------------------------------------------------------------------------
# Templates for a user's own data


# Smaller than the templates, and without pretrained weights from the network
SMALL_BACKBONE = ("model.backbone.base_channels=8", "model.backbone.stem_channels=8")
SMALL = {
    "fast-detr_r18_custom": (
        "model.neck.in_channels=[16,32,64]",
        "model.neck.out_channels=32",
        "model.transformer.embed_dims=32",
        "model.transformer.decoder.num_layers=2",
        *SMALL_BACKBONE,
    ),
    "conditional-detr_r50_custom": (
        "model.backbone.init_cfg=None",
        "model.backbone.depth=18",
        "model.neck.in_channels=[64]",
        "model.neck.out_channels=32",
        "model.transformer.embed_dims=32",
        "model.transformer.encoder.num_layers=1",
        "model.transformer.decoder.num_layers=2",
        *SMALL_BACKBONE,
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_templates(name, shapes, tmp_path, monkeypatch):
    """With --auto-scale-lr, and DetVisualizationHook drawing in validation."""
    config = ROOT / f"configs/custom/{name}.py"
    options = [
        f"data_root={shapes}/",
        *DATA_OPTIONS,
        *SMALL[name],
        "default_hooks.logger.interval=1",
        "default_hooks.visualization.draw=True",
        "default_hooks.visualization.interval=4",
        "train_cfg.val_interval=1",
        "val_dataloader.batch_size=1",
    ]
    for kind in ("train", "val", "test"):
        options += [
            f"{kind}_dataloader.num_workers=0",
            f"{kind}_dataloader.persistent_workers=False",
        ]
    trained, tested = tmp_path / "trained", tmp_path / "tested"
    arguments = [config, "--work-dir", trained, "--auto-scale-lr", "--cfg-options", *options]
    run_tool(monkeypatch, "train.py", *arguments, own_visualizer())
    if name.startswith("conditional"):  # written for 8 GPUs x 2 images, run on 1 x 4
        assert log_rows(trained)[0]["lr"] == pytest.approx(1e-4 * 0.1 * BATCH_SIZE / 16)
    assert len(pictures(trained)) == VAL_IMAGES // 4

    arguments = [config, trained / "epoch_1.pth", "--work-dir", tested, "--cfg-options", *options]
    run_tool(monkeypatch, "test.py", *arguments, own_visualizer())
    assert Config.fromfile(next(trained.glob("*_custom.py"))).model.bbox_head.num_classes == 2
    checkpoint = torch.load(trained / "epoch_1.pth", weights_only=True)
    assert tuple(checkpoint["meta"]["dataset_meta"]["classes"]) == OWN_CLASSES
    classifiers = [x for name, x in checkpoint["state_dict"].items() if "cls_branches" in name]
    assert {len(x) for x in classifiers} == {2}
    assert len(log_rows(trained)) >= 1
    assert 0 <= newest_metrics(tested)["coco/bbox_mAP"] <= 1


# --------------------------------------------------------------------------------------------------
# mmdet's other tools


def test_browse_dataset(tiny_config_file, shapes, tmp_path, monkeypatch):
    arguments = ["--not-show", "--output-dir", tmp_path]
    options = ["--cfg-options", f"data_root={shapes}/", own_visualizer()]
    run_tool(
        monkeypatch, "analysis_tools/browse_dataset.py", tiny_config_file, *arguments, *options
    )
    assert len(pictures(tmp_path)) == TRAIN_IMAGES
    # boxes were drawn: image 3 has objects
    drawn = cv2.imread(str(tmp_path / "000003.jpg"))
    plain = cv2.imread(str(shapes / "train/000003.jpg"))
    plain = cv2.resize(plain, drawn.shape[1::-1])
    assert (cv2.absdiff(drawn, plain).max(-1) > 100).sum() > 50


@pytest.mark.slow
def test_get_flops(tiny_config_file, shapes, monkeypatch, capsys):
    options = ["--num-images", "2", "--cfg-options", f"data_root={shapes}/"]
    run_tool(monkeypatch, "analysis_tools/get_flops.py", tiny_config_file, *options)
    printed = capsys.readouterr().out
    flops = re.search(r"Flops: ([\d.]+)([MG])", printed)
    params = re.search(r"Params: ([\d.]+)([KM])", printed)
    model = MODELS.build(Config.fromfile(tiny_config_file).model)
    count = sum(parameter.numel() for parameter in model.parameters())
    scale = {"K": 1e3, "M": 1e6, "G": 1e9}
    assert float(params[1]) * scale[params[2]] == pytest.approx(count, rel=0.01)
    assert 1e6 < float(flops[1]) * scale[flops[2]] < 1e9


def test_print_config(tiny_config_file, monkeypatch, capsys):
    arguments = [tiny_config_file, "--cfg-options", "data_root=elsewhere/"]
    run_tool(monkeypatch, "misc/print_config.py", *arguments)
    printed = Config.fromstring(capsys.readouterr().out.removeprefix("Config:\n"), ".py")
    assert printed.val_evaluator.ann_file == "elsewhere/annotations/val.json"
    assert printed.train_dataloader.dataset.data_root == "elsewhere/"
