"""ResNet whose dilated stages equal torchvision's, for the DC5 models of the DETR family."""

from __future__ import annotations

from mmdet.registry import MODELS
from torch import nn

from .folded_resnet import FoldedResNet


@MODELS.register_module()
class DilatedResNet(FoldedResNet):
    """mmdet's ResNet with the first block of a dilated stage at the previous stage's dilation.

    Paper: DETR, Carion et al. 2020, arXiv 2005.12872, Sec. 4, the DC5 models.

    torchvision, which all official DETR codes build on, replaces a stage's stride by dilation from
    the second block on; mmdet's ResNet dilates the first block too, which is another function for
    the same weights. Use with ``strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)`` for DC5.
    """

    def make_res_layer(self, **kwargs) -> nn.Sequential:
        """Build one stage with the arguments of mmdet's ResNet."""
        stage = super().make_res_layer(**kwargs)
        dilation = kwargs["dilation"]
        if dilation > 1:
            conv = stage[0].conv1 if kwargs["block"].expansion == 1 else stage[0].conv2
            conv.dilation = conv.padding = (dilation // 2, dilation // 2)
        return stage
