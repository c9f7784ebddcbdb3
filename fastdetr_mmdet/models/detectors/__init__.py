"""Detectors: one for the whole family."""

from .fast_detr import FastDETR

__all__ = ["FastDETR"]
