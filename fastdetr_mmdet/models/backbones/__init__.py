"""Backbones that mmdet lacks."""

from .dilated_resnet import DilatedResNet
from .folded_resnet import FoldedResNet

__all__ = ["DilatedResNet", "FoldedResNet"]
