"""Tell eager execution from tracing, export and compilation."""

from __future__ import annotations

import torch
from torch import Tensor

if hasattr(torch.compiler, "is_compiling"):
    is_compiling = torch.compiler.is_compiling
else:  # torch < 2.3
    from torch._dynamo.external_utils import is_compiling


def on_plain_cpu(x: Tensor) -> bool:
    """Whether CPU operators of this package may be used: on the CPU, without tracing."""
    return x.device.type == "cpu" and not written_down()


def written_down() -> bool:
    """Whether the call is compiled, exported or traced."""
    return is_compiling() or torch.onnx.is_in_onnx_export() or torch.jit.is_tracing()


def compiled_here() -> bool:
    """Whether ``torch.compile`` is tracing; its graph may call operators of this package.

    An exporter's graph may not: it is for other programs.
    """
    # Not is_exporting(): while torch.compile traces it is true, too, before torch 2.13.
    return is_compiling() and not getattr(torch.compiler, "_is_exporting_flag", True)


def plain_for_gradients(x: Tensor) -> Tensor:
    """Return contiguous maps where a gradient is needed on the CPU, else the maps.

    There oneDNN's gradient of a strided 1x1 convolution by its weight writes out of bounds if the
    maps are channels last and have 2 channels or more, but fewer than a vector register has floats:
    8 with AVX2, 16 with AVX-512 (torch 2.13). Gradients of 3x3 convolutions take a third less time.
    """
    return x.contiguous() if torch.is_grad_enabled() and x.device.type == "cpu" else x
