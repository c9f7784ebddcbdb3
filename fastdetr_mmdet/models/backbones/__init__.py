"""Backbones that mmdet lacks."""

from .dilated_resnet import DilatedResNet
from .efficientnet_lite import EfficientNetLite
from .folded_resnet import FoldedResNet

__all__ = ["DilatedResNet", "EfficientNetLite", "FoldedResNet"]
