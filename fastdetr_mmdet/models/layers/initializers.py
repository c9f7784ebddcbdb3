"""torch's default initialisation, which mmengine lacks."""

from __future__ import annotations

from mmengine.model.weight_init import BaseInit, update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import nn


@WEIGHT_INITIALIZERS.register_module(name="TorchDefault")
class TorchDefaultInit(BaseInit):
    """Weights and biases as torch's constructors draw them, uniform in +-1 / sqrt(fan_in).

    Paper: none.

    The official DETR codes initialise their input projection this way. mmcv's ``ConvModule`` has
    its own initialisation, and no other ``init_cfg`` makes biases random.

    Args:
        layer: Class names of the layers to initialise.
    """

    def __init__(self, layer: str | list[str]) -> None:
        super().__init__(layer=layer)

    def __call__(self, module: nn.Module) -> None:
        """Initialise the layers inside a module."""
        for child in module.modules():
            if type(child).__name__ in self.layer:
                child.reset_parameters()  # type: ignore[operator]
        if "_params_init_info" in vars(module):
            update_init_info(module, init_info="TorchDefaultInit")
