"""Group parameters for the optimizer."""

from __future__ import annotations

from itertools import chain
from typing import Any

from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn
from torch.optim import Optimizer


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, but parameters with the same settings share a group.

    mmengine makes one group per parameter, so a fused or foreach optimizer launches several hundred
    kernels instead of a few. Arguments are those of mmengine's ``DefaultOptimWrapperConstructor``.
    Optimizer states with one group per parameter load, too.

    Raises:
        ValueError: if modules share a parameter and ``bypass_duplicate`` is not set.
    """

    def add_params(self, params: list[dict], module: nn.Module, *args: Any, **kwargs: Any) -> None:
        """Append the module's groups to ``params``, one per setting."""
        super().add_params(params, module, *args, **kwargs)
        merged: dict[Any, dict] = {}
        for group in params:
            settings = {key: value for key, value in group.items() if key != "params"}
            same = merged.setdefault(repr(sorted(settings.items())), {**settings, "params": []})
            same["params"] += group["params"]
        params[:] = merged.values()
        for group in params:
            if len(set(map(id, group["params"]))) < len(group["params"]):
                raise ValueError(
                    "A parameter that two modules share would be updated twice; set "
                    "optim_wrapper.paramwise_cfg.bypass_duplicate=True."
                )

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer and its wrapper."""
        wrapper = super().__call__(model)
        position = {
            id(p): i for i, p in enumerate(p for p in model.parameters() if p.requires_grad)
        }

        def regroup(optimizer: Optimizer, state: dict) -> dict | None:
            groups, own = state["param_groups"], optimizer.param_groups
            sizes = {len(group["params"]) for group in groups}
            if len(groups) != len(position) or sizes != {1} or len(own) == len(groups):
                return None
            before = [[position[id(p)] for p in group["params"]] for group in own]
            names = {old: new for new, old in enumerate(chain(*before))}
            place = {group["params"][0]: old for old, group in enumerate(groups)}
            return {
                **state,
                "state": {names[place[i]]: value for i, value in state["state"].items()},
                "param_groups": [
                    {**groups[olds[0]], "params": [names[old] for old in olds]} for olds in before
                ],
            }

        wrapper.optimizer.register_load_state_dict_pre_hook(regroup)
        return wrapper
