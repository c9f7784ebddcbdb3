"""Check that the mixed configs learn: `python tests/mixed_report.py [CONFIG ...]`.

Each is trained by mmengine's runner for two epochs on 96 rendered images of at most 128 pixels, in
batches of 4 and without pretrained weights. Unlike in the configs, batch norms are trained, all
parameters have a learning rate of 1e-4, and there are 50 queries.
"""

import contextlib
import importlib.util
import sys
import tempfile
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from support.golden import ROOT

from fastdetr_mmdet.datasets.shapes import write_shapes

MIXED = ROOT / "configs" / "mixed"
NUM_IMAGES, IMAGE_SIZE, BATCH_SIZE, EPOCHS, NUM_QUERIES = 96, 128, 4, 2, 50
LEARN_FROM_NOTHING = dict(
    FoldedResNet=dict(
        frozen_stages=-1, norm_cfg=dict(type="BN", requires_grad=True), norm_eval=False
    )
)


def missing_modules(path: Path) -> list[str]:
    """Packages that the config imports and this environment lacks."""
    config = Config.fromfile(path, import_custom_modules=False)
    packages = {name.split(".")[0] for name in config.custom_imports["imports"]}
    return sorted(name for name in packages if importlib.util.find_spec(name) is None)


def without_pretrained_weights(backbone: dict) -> None:
    """Change a backbone's config so that nothing is downloaded."""
    backbone.pop("init_cfg", None)
    if "pretrained" in backbone:  # timm
        backbone["pretrained"] = False


def make_config(path: Path, data_root: Path, work_dir: Path) -> Config:
    """The config with a small dataset, without settings for long runs."""
    config = Config.fromfile(path)
    model = config.model
    without_pretrained_weights(model.backbone)
    model.backbone.update(LEARN_FROM_NOTHING.get(model.backbone.type, {}))
    model.num_queries = NUM_QUERIES

    shapes = Config.fromfile(ROOT / "configs/_base_/datasets/shapes_detection.py")
    model.bbox_head.num_classes = len(shapes.classes)
    config.train_dataloader = shapes.train_dataloader
    config.train_dataloader.batch_size = BATCH_SIZE
    config.train_dataloader.dataset.data_root = f"{data_root}/"
    for transform in config.train_dataloader.dataset.pipeline:
        if transform.type == "Resize":
            transform.scale = (IMAGE_SIZE, IMAGE_SIZE)
    config.train_cfg = dict(by_epoch=True, max_epochs=EPOCHS)
    config.param_scheduler = []
    config.optim_wrapper.pop("paramwise_cfg", None)
    config.optim_wrapper.optimizer.lr = 1e-4
    for kind in ("val", "test"):
        for part in ("cfg", "dataloader", "evaluator"):
            config[f"{kind}_{part}"] = None

    config.default_hooks.checkpoint = None
    config.visualizer.name = config.experiment_name = path.stem
    config.work_dir = str(work_dir / path.stem)
    config.log_level = "ERROR"
    config.randomness = dict(seed=0)
    return config


class LossLog(Hook):
    """Records the loss of every step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Append the step's loss."""
        self.losses.append(outputs["loss"].item())


def train(path: Path, data_root: Path, work_dir: Path) -> list[float]:
    """Run the config; return the loss of every step."""
    log = LossLog()
    with contextlib.redirect_stdout(sys.stderr):  # pycocotools prints
        runner = Runner.from_cfg(make_config(path, data_root, work_dir))
        runner.register_hook(log)
        runner.train()
    return log.losses


def first_and_last(losses: list[float]) -> tuple[float, float]:
    """Mean of the first quarter of the first epoch, and of the last quarter of the last one."""
    quarter = len(losses) // EPOCHS // 4
    return float(np.mean(losses[:quarter])), float(np.mean(losses[-quarter:]))


def main(arguments: list[str]) -> int:
    """Print the table; return 1 if a loss does not fall."""
    failed = False
    print("| config | loss, first quarter of epoch 1 | loss, last quarter of epoch 2 | falling |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        data_root = Path(folder) / "shapes"
        write_shapes(data_root, NUM_IMAGES, 1)
        for path in [Path(name) for name in arguments] or sorted(MIXED.glob("*.py")):
            if missing := missing_modules(path):
                print(f"| {path.stem} | not run: {', '.join(missing)} is not installed | | |")
                continue
            first, last = first_and_last(train(path, data_root, Path(folder)))
            falling = bool(last < first)  # no, if one is NaN
            failed |= not falling
            verdict = "yes" if falling else "**no**"
            print(f"| {path.stem} | {first:.2f} | {last:.2f} | {verdict} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    import conftest  # noqa: F401 (sets up mmdet's registries)

    sys.exit(main(sys.argv[1:]))
