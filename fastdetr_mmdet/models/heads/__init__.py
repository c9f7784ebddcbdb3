"""Heads: classes and boxes of all decoder layers, their losses and the final detections."""

from .fast_detr_head import FastDETRHead

__all__ = ["FastDETRHead"]
