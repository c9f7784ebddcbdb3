"""RoIAlign: mmcv's compiled op, and ONNX's own operator while a model is being exported."""

# No postponed annotations: torch reads an op's schema from them.

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmcv.ops import roi_align
from mmcv.ops.roi_align import ext_module
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
    if torch.compiler.is_compiling() and _align_opaque is not None:
        return _align_opaque(features.contiguous(), rois, size)
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


def _register() -> Callable[[Tensor, Tensor, int], Tensor] | None:
    """mmcv's op as one that ``torch.compile`` takes into its graph as it is, without looking in.

    From torch 2.4 on; before, compiling a model breaks its graph here.
    """
    if not hasattr(torch.library, "custom_op"):
        return None

    @torch.library.custom_op("fastdetr_mmdet::align_regions", mutates_args=())
    def align(features: Tensor, rois: Tensor, size: int) -> Tensor:
        return roi_align(features, rois, size, 1.0, 0, "avg", True)

    @align.register_fake
    def _(features: Tensor, rois: Tensor, size: int) -> Tensor:
        return features.new_empty(rois.shape[0], features.shape[1], size, size)

    @torch.library.custom_op("fastdetr_mmdet::align_regions_backward", mutates_args=())
    def hand_back(grad: Tensor, rois: Tensor, shape: list[int], size: int) -> Tensor:
        grad_features, nothing = grad.new_zeros(shape), grad.new_zeros(0)
        arguments = (grad.contiguous(), rois, nothing, nothing, grad_features)
        ext_module.roi_align_backward(
            *arguments,
            aligned_height=size,
            aligned_width=size,
            spatial_scale=1.0,
            sampling_ratio=0,
            pool_mode=1,  # mean
            aligned=True,
        )
        return grad_features

    @hand_back.register_fake
    def _(grad: Tensor, rois: Tensor, shape: list[int], size: int) -> Tensor:
        return grad.new_empty(shape)

    def keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
        features, rois, ctx.size = inputs
        ctx.save_for_backward(rois)
        ctx.shape = features.shape

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (rois,) = ctx.saved_tensors
        return hand_back(grad, rois, list(ctx.shape), ctx.size), None, None

    align.register_autograd(backward, setup_context=keep)
    return align


_align_opaque = _register()
