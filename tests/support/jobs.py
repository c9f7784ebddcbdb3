"""Jobs of the processes; also run in one process for comparison."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from mmdet.registry import HOOKS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size, init_dist
from mmengine.model.wrappers import MMDistributedDataParallel
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import Tensor, nn

import fastdetr_mmdet  # noqa: F401 (registers the parts)
from fastdetr_mmdet.models.proposal_losses import dense_proposal_loss
from support.bad_numbers import IMAGES, LABELS, in_loss
from support.faults import install
from support.models import make_batch, pick, randomise, total

ROOT = Path(__file__).parents[2]
CANVAS = (64, 96)  # fixed canvas, because convolutions see the padding

register_all_modules(init_default_scope=True)


def shrink(config: str) -> nn.Module:
    """Deterministic model of a shipped config with fewer layers and a narrow backbone."""
    cfg = Config.fromfile(ROOT / "configs" / config).model
    backbone = cfg.backbone
    backbone.update(depth=18, base_channels=8, stem_channels=8, init_cfg=None, norm_eval=True)
    channels = [8 * 2**stage for stage in backbone.out_indices]
    if cfg.neck.type == "ChannelMapper" and len(cfg.neck.in_channels) < len(channels):
        channels = channels[-len(cfg.neck.in_channels) :]
    cfg.neck.in_channels = channels
    cfg.num_queries = 8
    cfg.bbox_head.num_classes = 6
    for part in (cfg.transformer.get("encoder"), cfg.transformer.decoder):
        if part is not None:
            part.dropout = 0.0
        if part is not None and "num_layers" in part and "level_schedule" not in part:
            part.num_layers = 2
    if cfg.transformer.queries.type == "DenoisingQueries":
        cfg.transformer.queries.update(num_groups=2, label_noise=0.0, box_noise=0.0)
    torch.manual_seed(0)
    return randomise(MODELS.build(cfg), scale=0.02).train()


def batch(objects: list[int]) -> tuple[Tensor, list]:
    """One image per entry; the second is smaller than the canvas."""
    sizes = [CANVAS if index != 1 else (48, 64) for index in range(len(objects))]
    return make_batch(sizes=sizes, objects=objects, num_classes=6)


def gradients(configs: list[str], cases: list[list[int]]) -> dict[str, list[dict[str, float]]]:
    """Compare gradients of one image per process with those of one process with all images.

    DistributedDataParallel reports unused parameters at the start of the next step, so every model
    makes one step per case, and repeats the first.

    Args:
        configs: Paths below configs/.
        cases: Numbers of objects of the images.

    Returns:
        Per config and case the largest errors, relative to the gradient of the same parameter.
    """
    init_dist("pytorch", backend="gloo")
    found = {}
    for config in configs:
        whole = shrink(config)
        model = MMDistributedDataParallel(
            shrink(config), device_ids=[get_rank()], find_unused_parameters=False
        )
        found[config] = []
        for objects in [*cases, cases[0]]:
            whole.zero_grad()
            # the group of processes exists here too
            with patch.object(dense_proposal_loss, "get_world_size", return_value=1):
                total(whole(*batch(objects), mode="loss")).backward()
            model.zero_grad()
            total(model(*pick(*batch(objects), get_rank()), mode="loss")).backward()
            expected = dict(whole.named_parameters())
            errors = {
                name: error(p.grad, expected[name].grad)
                for name, p in model.module.named_parameters()
                if p.requires_grad
            }
            found[config].append(dict(sorted(errors.items(), key=lambda item: -item[1])[:3]))
    return found


def error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest expected value."""
    return ((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-4)).item()


def launch(launcher: str) -> list:
    """Start a launcher of mmengine; return its settings."""
    rank, size = os.environ["RANK"], os.environ["WORLD_SIZE"]
    if launcher == "slurm":
        del os.environ["RANK"], os.environ["LOCAL_RANK"], os.environ["WORLD_SIZE"]
        os.environ.update(
            SLURM_PROCID=rank, SLURM_NTASKS=size, SLURM_LOCALID=rank, SLURM_NODELIST="here"
        )
    if launcher == "mpi":
        del os.environ["RANK"], os.environ["LOCAL_RANK"], os.environ["WORLD_SIZE"]
        os.environ.update(
            OMPI_COMM_WORLD_LOCAL_RANK=rank, OMPI_COMM_WORLD_RANK=rank, OMPI_COMM_WORLD_SIZE=size
        )
    set_device = torch.cuda.set_device
    init_dist(launcher, backend="gloo")
    assert torch.cuda.set_device is set_device
    number = torch.tensor([get_rank() + 1.0])
    torch.distributed.all_reduce(number)
    return [get_rank(), get_world_size(), number.item()]


def runner(config: str, work_dir: str, launcher: str, options: dict[str, Any]) -> Any:
    """Build a Runner or FlexibleRunner; options as for --cfg-options."""
    os.chdir(work_dir)  # mmengine gathers results through a folder in it
    cfg = Config.fromfile(config)
    cfg.launcher = launcher
    cfg.work_dir = work_dir
    cfg.merge_from_dict({"env_cfg.dist_cfg.backend": "gloo", **options})
    return RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)


def train(config: str, work_dir: str, options: dict[str, Any], launcher: str = "pytorch") -> None:
    """Train like tools/train.py."""
    runner(config, work_dir, launcher, options).train()


def train_with_faults(
    config: str, work_dir: str, options: dict[str, Any], faults: dict[str, Any] | None
) -> None:
    """Train with faults in the first process, arguments of `faults.install`."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    Path(work_dir).mkdir(parents=True, exist_ok=True)
    if faults is not None and rank == 0:
        install(**faults)
    np.random.seed()  # noqa: NPY002 (mmengine draws its seed from it)
    train(config, work_dir, options, "pytorch" if size > 1 else "none")


def train_with_bad_numbers(
    config: str, work_dir: str, options: dict[str, Any], what: str, step: int, rank: int
) -> dict[str, Any]:
    """Train with one process's image, label or loss corrupted at one step; return the outcome."""
    run = runner(config, work_dir, "pytorch", options)
    if get_rank() == rank:
        if not isinstance(run.model, nn.Module):
            run.model = MODELS.build(run.model)  # FlexibleRunner builds it later
        {"image": IMAGES, "label": LABELS, "loss": in_loss("d0.loss_bbox")}[what](run, step)
    message = None
    try:
        run.train()
    except ValueError as error:  # NotFiniteError is one
        message = str(error)
    weights = {name: p.detach() for name, p in run.model.module.named_parameters()}
    return dict(message=message, iterations=run.iter, weights=weights)


def test(
    config: str, work_dir: str, options: dict[str, Any], launcher: str = "pytorch"
) -> dict[str, float]:
    """Test like tools/test.py."""
    return runner(config, work_dir, launcher, options).test()


def on_fake_cuda(name: str, dtype: str, small: bool = True) -> dict[str, list[str]]:
    """Places where a model reads the device in prediction, a training step and weight averaging.

    Args:
        name: Config name.
        dtype: As of ``benchmarks.work``.
        small: Whether to use ``small_detector`` instead of the config's model.
    """
    from benchmarks import fake_cuda, work
    from benchmarks.batches import Batch
    from benchmarks.cases import Side
    from support.small import small_detector

    fake_cuda.install()
    device, (images, samples) = fake_cuda.FakeCuda(), make_batch()
    config = Config.fromfile(ROOT / "configs" / f"{name}.py", import_custom_modules=False)
    config.model.backbone.init_cfg = None
    model = small_detector(name) if small else MODELS.build(config.model)
    side = Side(device.put_module(model), config)
    for sample in samples:
        sample.gt_instances = device.put_objects(sample.gt_instances)
    batch, reads = Batch(device.put(images), samples), {}
    with device:
        for call in (work.inference, work.training_step):
            device.clear()
            call(side, batch, "cuda", dtype)()
            reads[call.__name__] = list(device.reads)
        if "ema" in config.get("default_hooks", {}):
            hook = HOOKS.build(config.default_hooks.ema)
            device.clear()
            hook.before_run(SimpleNamespace(model=model, max_iters=10))
            hook.after_train_iter(SimpleNamespace(model=model, iter=3), 3)
            assert device.operators
            reads["training_step"] += device.reads
    return reads


def account_on_fake_cuda() -> dict[str, int]:
    """Live and moved bytes of a product and a dropped sum."""
    from benchmarks import fake_cuda

    fake_cuda.install()
    device = fake_cuda.FakeCuda()
    x, y = device.put(torch.ones(16, 32)), device.put(torch.ones(8, 32))
    before = device.held
    with device:
        product = x @ y.T
        product + product.expand(16, 8)
    return dict(before=before, held=device.held, peak=device.peak, moved=device.moved)
