"""Whether what is called is computed now, or written down to be computed elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor


def on_plain_cpu(x: Tensor) -> bool:
    """Whether an operator made for the CPU may be used: on it, and nobody writes down a graph."""
    return x.device.type == "cpu" and not written_down()


def written_down() -> bool:
    """Whether a compiler, an exporter or a tracer is watching."""
    return torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export() or torch.jit.is_tracing()


def compiled_here() -> bool:
    """Whether ``torch.compile`` is watching, whose graph may call operators of this package.

    An exporter's graph may not: it is for other programs.
    """
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return torch.compiler.is_compiling() and not exporting()
