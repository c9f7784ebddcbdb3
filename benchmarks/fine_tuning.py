"""Compare fine-tuning with and without class rows from a detector of some of the classes.

    python -m benchmarks.fine_tuning --data-root data/bccd --classes RBC,WBC,Platelets
    python -m benchmarks.fine_tuning --data-root data/bccd --classes RBC,WBC,Platelets
        --source work_dirs/cards/fast-detr_lite0_convergence/seed_0/epoch_8.pth

Trains the recipe (configs/custom/fast-detr_lite0_custom.py) on half of the images of a COCO-format
dataset (train.json, val.json, images/) and the first two thirds of the classes. Then trains on the
other half with all classes, four times per seed: from that detector with class rows by name and the
others from their mean, with the others from initial values, without its class branches, and from
ImageNet features alone. ``--source`` is a detector trained elsewhere, of other classes. Prints AP
on val.json after every epoch; one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.hooks import Hook
from mmengine.runner import CheckpointLoader, Runner

from .command_line import parser, quiet
from .each_part import run_config

Weights = dict[str, torch.Tensor]


class Curve(Hook):
    """Records AP after every validation."""

    def __init__(self) -> None:
        self.ap: list[float] = []

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Keep it."""
        self.ap.append((metrics or {})["coco/bbox_mAP"])


def train(args: argparse.Namespace, images: Path, load_from: str | None, work_dir: str) -> Any:
    """Return the trained runner and AP after every epoch."""
    config = run_config(args, {}, args.seed, work_dir)
    config.merge_from_dict(
        {
            "train_dataloader.dataset.ann_file": str(images),
            "train_cfg.val_interval": 1,
            "load_from": load_from,
            "optim_wrapper.optimizer.lr": args.lr,
        }
    )
    config.experiment_name = f"fine_tuning_{time.time_ns()}"
    runner, curve = Runner.from_cfg(config), Curve()
    runner.register_hook(curve)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools' tables
        runner.train()
    return runner.model, curve.ap


def main() -> None:
    """Train and print a table."""
    options = parser(__file__, __doc__)
    add = options.add_argument
    add("--data-root", type=Path, required=True, metavar="DIR",
        help="folder with train.json, val.json and images/")  # fmt: skip
    add("--classes", type=lambda text: text.split(","), required=True, metavar="A,B,...")
    add("--image-scale", type=int, nargs=2, default=(192, 144), metavar=("W", "H"), help="pixels")
    add("--source", type=Path, help="detector of other classes to start from")
    add("--source-epochs", type=int, default=8, help="epochs of the detector")
    add("--epochs", type=int, default=3, help="epochs of fine-tuning")
    add("--batch-size", type=int, default=4, help="images")
    add("--lr", type=float, default=1e-3, help="learning rate")
    add("--seeds", type=int, nargs="+", default=(0, 1, 2), help="one run per seed")
    args = options.parse_args()
    args.recipe, args.frozen = True, False
    torch.set_num_threads(1)
    quiet()
    args.data_root = args.data_root.resolve()
    every, epochs = args.classes, args.epochs
    known = every[: 2 * len(every) // 3]
    work = tempfile.TemporaryDirectory()
    halves = _halves(args, Path(work.name))
    if args.source:
        source = CheckpointLoader.load_checkpoint(str(args.source), "cpu")
        weights, known = source["state_dict"], source["meta"]["dataset_meta"]["classes"]
    else:
        args.seed, args.classes, args.epochs = 0, known, args.source_epochs
        model, curve = train(args, halves[0], None, work.name)
        print(f"Source, {', '.join(known)}: AP {curve[-1]:.3f} after {len(curve)} epochs\n")
        weights = model.state_dict()
    print("| start | seed | " + " | ".join(f"epoch {n + 1}" for n in range(epochs)) + " |")
    print("|---" * (epochs + 2) + "|", flush=True)
    args.classes, args.epochs = every, epochs
    headless = {key: value for key, value in weights.items() if ".cls_branches." not in key}
    starts = {
        "rows by name, others from their mean": (weights, known),
        "class branches dropped": (headless, known),
        "ImageNet features alone": (None, known),
    }
    if not args.source:
        initial = weights | _initial_rows(args, weights, work.name)
        starts["rows by name, others initial"] = (initial, every)
    for seed in args.seeds:
        args.seed = seed
        for start, (state, names) in starts.items():
            file = f"{work.name}/source.pth"
            torch.save(dict(state_dict=state, meta=dict(dataset_meta=dict(classes=names))), file)
            _, curve = train(args, halves[1], file if state else None, work.name)
            values = " | ".join(f"{ap:.3f}" for ap in curve)
            print(f"| {start} | {seed} | {values} |", flush=True)


def _initial_rows(args: argparse.Namespace, weights: Weights, work_dir: str) -> Weights:
    """Class branches of all classes: the rows of the known ones, then rows of a new model."""
    model = MODELS.build(run_config(args, {}, 0, work_dir).model)
    model.init_weights()
    return {
        key: torch.cat([weights[key], value[len(weights[key]) :]])
        for key, value in model.state_dict().items()
        if ".cls_branches." in key
    }


def _halves(args: argparse.Namespace, folder: Path) -> list[Path]:
    """Annotation files of two halves of the training images."""
    coco = json.loads((args.data_root / "train.json").read_text())
    random.Random(0).shuffle(coco["images"])
    files = []
    for half in range(2):
        images = coco["images"][half::2]
        ids = {image["id"] for image in images}
        boxes = [box for box in coco["annotations"] if box["image_id"] in ids]
        files.append(folder / f"half_{half}.json")
        files[-1].write_text(json.dumps(dict(coco, images=images, annotations=boxes)))
    return files


if __name__ == "__main__":
    main()
