"""RoIAlign: mmcv's compiled op, and ONNX's own operator while a model is being exported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmcv.ops import roi_align
from torch import Tensor

_for_onnx = False


@contextmanager
def regions_in_onnx() -> Iterator[None]:
    """Within it ``align_regions`` leaves ONNX's operator in what is traced, and computes nothing.

    To be asked for, as torch.export serves other ends too, and there zeros would come out.
    """
    global _for_onnx
    before, _for_onnx = _for_onnx, True
    try:
        yield
    finally:
        _for_onnx = before


def align_regions(features: Tensor, rois: Tensor, size: int) -> Tensor:
    """Cut regions out of maps, as many bilinear samples per cell as it has pixels (``aligned``).

    Shape:
        features: (bs, dims, h, w) float32
        rois: (num_rois, 5) float32: index of the image, then x1, y1, x2, y2 in cells
        returns: (num_rois, dims, size, size)
    """
    if _for_onnx:
        return _align_in_onnx(features, rois, size)
    return roi_align(features.contiguous(), rois, size, 1.0, 0, "avg", True)


def _align_in_onnx(features: Tensor, rois: Tensor, size: int) -> Tensor:
    """The same as ONNX's operator ``RoiAlign`` of opset 16, whose ``half_pixel`` is ``aligned``."""
    return torch.onnx.ops.symbolic(
        "RoiAlign",
        (features, rois[:, 1:], rois[:, 0].long()),
        dict(
            coordinate_transformation_mode="half_pixel",
            mode="avg",
            output_height=size,
            output_width=size,
            sampling_ratio=0,
            spatial_scale=1.0,
        ),
        dtype=features.dtype,
        shape=(rois.shape[0], features.shape[1], size, size),
        version=16,
    )
