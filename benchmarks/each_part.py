"""Train a template briefly with one change per row: loss, AP and CPU time.

    python -m benchmarks.each_part --data-root data/bccd --classes Platelets,RBC,WBC
    python -m benchmarks.each_part --recipe --epochs 8 --seeds 0 1 2 --image-scale 224 224
        --data-root data/cards --classes nine,ten,jack,queen,king,ace

Trains a template, unchanged and once per row, with one thread, on a dataset in COCO format
(train.json, val.json, images/), or on the config's own. Rows are PARTS, each alone in the small
template without its own parts, or with ``--recipe`` CHANGES of the recipe, or of the config given.
Prints means over seeds: loss of the first and last quarter of the iterations, AP after each quarter
of the epochs, and CPU seconds. Compare losses within a row only, because parts add loss terms.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = ROOT / "configs/custom/fast-detr_r18_custom.py"
RECIPE = ROOT / "configs/custom/fast-detr_lite0_custom.py"

_QUERIES = dict(type="TwoStageQueries", class_aware=True, content="memory", box_size=0.2)
_LEARNED = dict(_QUERIES, content="learned")
_ENCODER = dict(type="DeformableDetrEncoder", num_layers=1, num_levels=2, feedforward_channels=256)
_ENCODER |= dict(num_heads=8, dropout=0.0)
# The template without its own parts, at strides 16 and 32, so that each row has one part alone.
_PLAIN = {
    "model.backbone.out_indices": (2, 3),
    "model.neck": dict(type="FPN", in_channels=[128, 256], out_channels=128, num_outs=2),
    "model.transformer.decoder.cross_attn.num_levels": 2,
    "model.transformer.queries": _QUERIES,
    "model.bbox_head.loss_cls": None,
    "model.bbox_head.proposal_loss": None,
    "optim_wrapper.paramwise_cfg": None,
}


def _queries(**options: Any) -> dict:
    return {"model.transformer.queries": dict(_QUERIES, **options)}


def _around(kind: str, queries: dict = _QUERIES, **options: Any) -> dict:
    """Wrap the template's query initialiser, or another."""
    return {"model.transformer.queries": dict(type=kind, queries=queries, **options)}


def _decoder(**options: Any) -> dict:
    return {f"model.transformer.decoder.{key}": value for key, value in options.items()}


def _loss(kind: str, **options: Any) -> dict:
    return {"model.bbox_head.loss_cls": dict(type=kind, **options)}


def _dense(assigner: str, **options: Any) -> dict:
    loss = dict(type="DenseProposalLoss", assigner=dict(type=assigner, **options))
    return {"model.bbox_head.proposal_loss": loss} | _queries(num_convs=2, box_form="distance")


_COST = [
    dict(type="PositionModulatedFocalCost", weight=2.0),
    dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
    dict(type="IoUCost", iou_mode="giou", weight=2.0),
]
_ATSS = dict(
    type="ATSSHead",
    in_channels=128,
    feat_channels=128,
    stacked_convs=1,
    anchor_generator=dict(
        type="AnchorGenerator",
        ratios=[1.0],
        octave_base_scale=4,
        scales_per_octave=1,
        strides=[16, 32],
    ),
    bbox_coder=dict(
        type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2]
    ),
    loss_cls=dict(type="FocalLoss", use_sigmoid=True),
    loss_bbox=dict(type="GIoULoss", loss_weight=2.0),
    train_cfg=dict(assigner=dict(type="ATSSAssigner", topk=9), allowed_border=-1, pos_weight=-1),
)
# Row -> changes of the template.
PARTS: dict[str, dict[str, Any]] = {
    "the template without its parts": {},
    "DenoisingQueries, contrastive": _around("DenoisingQueries", num_dn_queries=40),
    "DenoisingQueries, DN-DETR's": _around(
        "DenoisingQueries", contrastive=False, num_groups=5, label_noise=0.2, box_noise=0.4
    ),
    "content='learned', reference_pos='image'": {
        "model.transformer.queries": _LEARNED,
        **_decoder(reference_pos="image"),
    },
    "supervise='selected'": _queries(supervise="selected"),
    "look_forward_twice": _decoder(look_forward_twice=True),
    "GroupQueries, 3 groups": _around("GroupQueries", num_groups=3),
    "HybridQueries": _around("HybridQueries", num_extra=120),
    "mixed_supervision": _decoder(mixed_supervision=True),
    "DenseProposalLoss, DynamicSoftLabelAssigner": _dense("DynamicSoftLabelAssigner", topk=13),
    "DenseProposalLoss, TaskAlignedAssigner": _dense("TaskAlignedAssigner", topk=13),
    "DenseProposalLoss, ATSSAssigner": _dense("ATSSAssigner", topk=9),
    "DenseProposalLoss, SimOTAAssigner": _dense("SimOTAAssigner"),
    "distinct=0.8": _queries(distinct=0.8),
    "residual_classes": _queries(residual_classes=True),
    "aux_heads, ATSSHead": {"model.aux_heads": [_ATSS]},
    "MALLoss": _loss("MALLoss"),
    "IABCELoss": _loss("IABCELoss"),
    "PositionSupervisedLoss": _loss("PositionSupervisedLoss"),
    "QualityFocalLoss": _loss("QualityFocalLoss", use_sigmoid=True),
    "VarifocalLoss": _loss("VarifocalLoss", use_sigmoid=True),
    "PositionModulatedFocalCost": {
        "model.train_cfg": dict(assigner=dict(type="HungarianMatcher", match_costs=_COST))
    },
    "RelationSelfAttention": _decoder(self_attn=dict(type="RelationSelfAttention")),
    "DeformableDetrEncoder, 1 layer": {"model.transformer.encoder": _ENCODER},
    "the same with memory_fusion": {
        "model.transformer.encoder": dict(_ENCODER, memory_fusion=True)
    },
    "HybridEncoder": {
        "model.transformer.encoder": dict(
            type="HybridEncoder", num_levels=2, feedforward_channels=256, depth=1, expansion=0.5
        )
    },
}


def _rates(num_layers: int | None, backbone: float = 0.1) -> dict:
    """The recipe's factors of learning rates for a number of decoder layers; None: no factors."""
    factors = {"backbone": dict(lr_mult=backbone)}
    if num_layers is not None:
        factors[f"bbox_head.cls_branches.{num_layers}"] = dict(lr_mult=8.0)
        factors[f"bbox_head.reg_branches.{num_layers}.4"] = dict(lr_mult=3.0)
    return {"optim_wrapper.paramwise_cfg": dict(custom_keys=factors)}


_RECIPE_QUERIES = Config.fromfile(RECIPE).model.transformer.queries.to_dict()
_DENSE = "model.bbox_head.proposal_loss"
_QUERY = "model.transformer.queries."
_FOCAL = dict(type="FocalLoss", use_sigmoid=True)
_ALIGNED = dict(type="DenseProposalLoss", assigner=dict(type="TaskAlignedAssigner", topk=13))
_BY_PLACE = dict(
    type="DenseProposalLoss", assigner=dict(type="ATSSAssigner", topk=9), anchor_scale=4.0
)
# Row -> changes of the recipe.
CHANGES: dict[str, dict[str, Any]] = {
    "the recipe": {},
    "proposals: Hungarian loss": {_DENSE: None},
    "proposals: RTMDet's assigner": {_DENSE: dict(type="DenseProposalLoss")},
    "proposals: TOOD's assigner": {_DENSE: _ALIGNED},
    "proposals: ATSS's assigner": {_DENSE: _BY_PLACE},
    "proposals: focal loss": {_DENSE: dict(_ALIGNED, loss_cls=_FOCAL)},
    "proposals: ATSS's assigner, focal loss": {_DENSE: dict(_BY_PLACE, loss_cls=_FOCAL)},
    "proposals: no convolutions": {_QUERY + "num_convs": 0},
    "proposals: two convolutions": {_QUERY + "num_convs": 2},
    "proposals: not distinct": {_QUERY + "distinct": None},
    "classes not residual": {_QUERY + "residual_classes": False},
    "40 queries": {"model.num_queries": 40},
    "focal loss": {"model.bbox_head.loss_cls": None},
    "MALLoss as in the paper": _loss("MALLoss"),
    "MALLoss for proposals, too": {
        _DENSE: dict(_ALIGNED, loss_cls=dict(type="MALLoss", gamma=1.0, separate_classes=True))
    },
    "IABCELoss": _loss("IABCELoss"),
    "PositionModulatedFocalCost": PARTS["PositionModulatedFocalCost"],
    "learned contents": {_QUERY + "content": "learned", **_decoder(reference_pos="image")},
    "DenoisingQueries": _around("DenoisingQueries", _RECIPE_QUERIES, num_dn_queries=40),
    "GroupQueries, 3 groups": _around("GroupQueries", _RECIPE_QUERIES, num_groups=3),
    "DeformableDetrEncoder, 1 layer": {
        "model.transformer.encoder": dict(_ENCODER, num_levels=3, memory_fusion=True)
    },
    "HybridEncoder": {
        "model.transformer.encoder": dict(
            type="HybridEncoder", num_levels=3, feedforward_channels=256, depth=1, expansion=0.5
        )
    },
    "look_forward_twice": _decoder(look_forward_twice=True),
    "mixed_supervision": _decoder(mixed_supervision=True),
    "RelationSelfAttention": _decoder(self_attn=dict(type="RelationSelfAttention")),
    "3 layers": _decoder(num_layers=3) | _rates(3),
    "learning rate 2e-3": {"optim_wrapper.optimizer.lr": 2e-3},
    "learning rate 5e-4": {"optim_wrapper.optimizer.lr": 5e-4},
    "no average of weights": {"default_hooks.ema": None},
    "one learning rate for all new layers": _rates(None),
    "backbone at 0.3 of the learning rate": _rates(2, backbone=0.3),
    "warm-up over 100 steps": {
        "param_scheduler": [
            dict(type="LinearLR", start_factor=0.04, by_epoch=False, end=100),
            dict(
                type="CosineAnnealingLR",
                eta_min_ratio=0.001,
                by_epoch=True,
                convert_to_iter_based=True,
            ),
        ]
    },
}


class LossCurve(Hook):
    """Records the loss of every iteration and the CPU seconds of training."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.seconds = 0.0

    def before_train_epoch(self, runner: Any) -> None:
        """Record the start time."""
        self.started = time.process_time()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Record the loss."""
        self.losses.append(outputs["loss"].item())

    def after_train_epoch(self, runner: Any) -> None:
        """Add the epoch's time."""
        self.seconds += time.process_time() - self.started


def _dataset(args: argparse.Namespace) -> dict[str, Any]:
    """The templates' variables, from which they derive the other keys."""
    names = dict(train_ann="train.json", val_ann="val.json", train_images="images/")
    names |= dict(val_images="images/", data_root=str(args.data_root))
    return names | dict(classes=tuple(args.classes), image_scale=tuple(args.image_scale))


def run_config(
    args: argparse.Namespace, changes: dict[str, Any], seed: int, work_dir: str
) -> Config:
    """Config of the template, on the dataset if one is given, with changes."""
    config = Config.fromfile(args.recipe or TEMPLATE)
    options: dict[str, Any] = {
        "train_cfg.max_epochs": args.epochs,
        "train_cfg.val_interval": max(1, args.epochs // 4),
        "train_dataloader.batch_size": args.batch_size,
        "randomness.seed": seed,
        "log_level": "ERROR",
        "custom_hooks": [],
    }
    for loader in ("train_dataloader", "val_dataloader"):
        options |= {f"{loader}.num_workers": 0, f"{loader}.persistent_workers": False}
    config.merge_from_dict(options | (_dataset(args) if args.data_root else {}))
    changes = changes if args.recipe else _PLAIN | changes
    for key, value in changes.items():  # replace dicts instead of merging them
        *above, last = key.split(".")
        place = config
        for name in above:
            place = place.setdefault(name, {})
        place[last] = value
    hooks = config.default_hooks.items()
    config.default_hooks = {name: hook for name, hook in hooks if hook is not None}
    config.work_dir = work_dir
    config.test_dataloader = config.test_evaluator = config.test_cfg = None
    config.default_hooks.checkpoint = None
    return config


def train(config: Config) -> dict[str, Any]:
    """Train with one seed; return the results."""
    config.experiment_name = f"each_part_{time.time_ns()}"
    runner = Runner.from_cfg(config)
    curve = LossCurve()
    runner.register_hook(curve)
    runner.train()
    quarter = max(1, len(curve.losses) // 4)
    return {
        "first losses": float(np.mean(curve.losses[:quarter])),
        "last losses": float(np.mean(curve.losses[-quarter:])),
        "AP": runner.message_hub.get_scalar("val/coco/bbox_mAP").data[0].tolist(),
        "CPU s": curve.seconds,
    }


def select(table: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Rows of these names; a name that no row has selects all rows that contain it."""
    chosen = [row for name in names for row in ([name] if name in table else table) if name in row]
    return {row: table[row] for row in table if row in chosen}


def main() -> None:
    """Train every row and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.each_part", description=__doc__.splitlines()[0]
    )
    parser.add_argument("names", nargs="*", help="only these rows, or all that contain the text")
    parser.add_argument("--data-root", type=Path, metavar="DIR",
        help="folder with train.json, val.json and images/ (default: the config's)")  # fmt: skip
    parser.add_argument("--classes", type=lambda text: text.split(","), metavar="A,B,...")
    parser.add_argument("--image-scale", type=int, nargs=2, default=(192, 144), metavar=("W", "H"),
        help="with --data-root (192 144)")  # fmt: skip
    parser.add_argument("--epochs", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=4, help="(%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="(0)")
    parser.add_argument(
        "--recipe",
        nargs="?",
        const=RECIPE,
        metavar="CONFIG",
        help="changes of this config (the recipe), not of the small template without its parts",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    args = parser.parse_args()
    if (args.data_root is None) != (args.classes is None):
        parser.error("give --data-root and --classes together")
    if args.recipe and not Path(args.recipe).is_file():
        parser.error(f"--recipe: no config {args.recipe}; names of rows come before the options")
    table = CHANGES if args.recipe else PARTS
    if args.names:
        everything = "\n  ".join(table)
        table = select(table, args.names)
        if not table:
            names = " or ".join(args.names)
            parser.error(f"no row has {names} in its name; the rows are\n  {everything}")
    dataset = run_config(args, {}, seed=0, work_dir="").train_dataloader.dataset
    annotations = Path(dataset.data_root) / dataset.ann_file
    if not annotations.is_file():
        parser.error(f"no file {annotations}; name your dataset with --data-root and --classes")
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    # One for all rows, because mmengine's visualizer keeps writing to the first.
    work_dir = tempfile.TemporaryDirectory()
    rows: dict[str, list[dict[str, Any]]] = {}
    print("| part | loss, first quarter | last quarter | AP | CPU s |\n|---|---|---|---|---|")
    for name, changes in table.items():
        rows[name] = []
        for seed in args.seeds:
            with contextlib.redirect_stdout(io.StringIO()):  # pycocotools' tables
                rows[name].append(train(run_config(args, changes, seed, work_dir.name)))
        print(_line(name, rows[name]), flush=True)
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1))


def _line(name: str, seeds: list[dict[str, Any]]) -> str:
    """Format means over the seeds, and the last AP's range."""
    mean = {key: np.mean([row[key] for row in seeds], axis=0) for key in seeds[0]}
    curve = " / ".join(f"{ap:.3f}" for ap in mean["AP"])
    if len(seeds) > 1:
        last = [row["AP"][-1] for row in seeds]
        curve += f" ({min(last):.3f} to {max(last):.3f})"
    first, last_losses = mean["first losses"], mean["last losses"]
    return f"| {name} | {first:.2f} | {last_losses:.2f} | {curve} | {mean['CPU s']:.0f} |"


if __name__ == "__main__":
    main()
