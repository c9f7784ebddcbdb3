"""Distributed training on CPUs, and FSDP that clips, saves and resumes like one process."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from mmengine._strategy import FSDPStrategy
from mmengine.device import get_device
from mmengine.dist import utils as launchers
from mmengine.model.wrappers import MMDistributedDataParallel
from mmengine.optim import BaseOptimWrapper
from mmengine.registry import STRATEGIES
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel

from .hooks.changes import Changes


@contextlib.contextmanager
def cpu_processes() -> Iterator[None]:
    """Context in which mmengine can run distributed training without GPUs.

    mmengine's launchers pick a CUDA device first, and its wrapper passes that device to
    DistributedDataParallel, which refuses it for a model on the CPU. With a GPU (or an NPU, MLU,
    MUSA device) nothing changes.
    """
    if get_device() != "cpu":
        yield
        return
    build = MMDistributedDataParallel.__init__

    @functools.wraps(build)
    def build_on_cpu(self: Any, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **{**kwargs, "device_ids": None})

    with Changes() as changes:
        for name in ("_init_dist_pytorch", "_init_dist_slurm", "_init_dist_mpi"):
            init = getattr(launchers, name)
            changes.set(launchers, name, functools.partial(_init_on_cpu, init))
        changes.set(MMDistributedDataParallel, "__init__", build_on_cpu)
        yield


def _init_on_cpu(init: Callable, backend: str, *args: Any, **kwargs: Any) -> None:
    if backend == "nccl":
        # No silent fallback to gloo: this may be a node whose driver failed.
        raise RuntimeError(
            "env_cfg.dist_cfg.backend='nccl' needs GPUs, and this process sees none. Fix the "
            "driver, or train on CPUs with --cfg-options env_cfg.dist_cfg.backend=gloo."
        )
    with Changes() as changes:
        changes.set(torch.cuda, "set_device", lambda device: None)
        init(backend, *args, **kwargs)


@STRATEGIES.register_module()
class FullFSDPStrategy(FSDPStrategy):
    """mmengine's FSDP strategy with four fixes.

    Gradients are clipped by their norm over all processes, not by each shard's norm. Checkpoints
    hold the whole model and optimizer, so any number of processes can test or resume them. Resuming
    restores the optimizer's state (mmengine 0.10 passes torch >= 2.1 the arguments in the wrong
    order). And it runs on CPUs.

    Args:
        state_dict_cfg: As for ``FSDPStrategy``; default "full".
        **kwargs: As for ``FSDPStrategy``.
    """

    def __init__(self, *, state_dict_cfg: str | dict = "full", **kwargs: Any) -> None:
        super().__init__(state_dict_cfg=state_dict_cfg, **kwargs)

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        if get_device() == "cpu":
            wrapper: dict = self.model_wrapper or dict(type="MMFullyShardedDataParallel")
            self.model_wrapper: dict | None = {"device_id": torch.device("cpu"), **wrapper}
        return super()._wrap_model(model)

    def _init_state_dict_cfg(self, state_dict_cfg: str | dict) -> None:
        super()._init_state_dict_cfg(state_dict_cfg)
        if state_dict_cfg == "full" and get_device() == "cpu":
            # With offload_to_cpu on the CPU, torch would free the tensors that it returns.
            self.state_dict_config.offload_to_cpu = False
            self.optim_state_dict_config.offload_to_cpu = False

    def build_optim_wrapper(self, optim_wrapper: Any, model: Any = None) -> BaseOptimWrapper:
        """Build mmengine's wrapper that clips by the norm over all processes."""
        wrapper = super().build_optim_wrapper(optim_wrapper, model)
        if getattr(wrapper, "grad_name", None) == "grad_norm":
            wrapper.clip_func = functools.partial(_clip_by_global_norm, model)
        return wrapper

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Resume the optimizer."""
        own = FullyShardedDataParallel.optim_state_dict_to_load(
            model=self.model, optim=self.optim_wrapper.optimizer, optim_state_dict=state_dict
        )
        self.optim_wrapper.load_state_dict(own)


def _clip_by_global_norm(
    model: FullyShardedDataParallel,
    parameters: list[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
) -> Tensor:
    """Replace mmengine's clipping, which would use the norm of this process's shards."""
    return model.clip_grad_norm_(max_norm, norm_type)
