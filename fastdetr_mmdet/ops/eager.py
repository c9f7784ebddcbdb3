"""Tell eager execution from tracing, export and compilation."""

from __future__ import annotations

import torch
from torch import Tensor

if hasattr(torch.compiler, "is_compiling"):
    is_compiling = torch.compiler.is_compiling
else:  # torch < 2.3
    from torch._dynamo.external_utils import is_compiling


def on_plain_cpu(x: Tensor) -> bool:
    """Whether this package's CPU operators can be used: on the CPU, without tracing."""
    return x.device.type == "cpu" and not written_down()


def written_down() -> bool:
    """Whether the call is compiled, exported or traced."""
    return is_compiling() or torch.onnx.is_in_onnx_export() or torch.jit.is_tracing()


def compiled_here() -> bool:
    """Whether ``torch.compile`` is tracing; its graph may call this package's operators.

    An exported graph may not, because other programs run it.
    """
    # Not is_exporting(), which before torch 2.13 is also true while torch.compile traces.
    return is_compiling() and not getattr(torch.compiler, "_is_exporting_flag", True)


def plain_for_gradients(x: Tensor) -> Tensor:
    """Make maps contiguous if they need a gradient on the CPU.

    oneDNN's weight gradient of a strided 1x1 convolution writes out of bounds if maps are channels
    last and have at least 2 channels, but fewer than a vector register has floats: 8 with AVX2, 16
    with AVX-512 (torch 2.13). Gradients of 3x3 convolutions also take a third less time.
    """
    return x.contiguous() if torch.is_grad_enabled() and x.device.type == "cpu" else x
