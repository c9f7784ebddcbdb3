"""Register functions as opaque operators for ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable

# From torch 2.4 on; before, compiling a model breaks its graph, or takes plain operators.
HAS_OPERATORS = hasattr(torch.library, "custom_op")


def operator(schema: str, function: Callable, fake: Callable) -> Any:
    """A function under the name and of the arguments of a schema; itself where there are none.

    Args:
        schema: As in ``name(Tensor x, int size) -> Tensor``; results share no memory with ``x``.
        function: What is computed.
        fake: What says of which shape, type and device the results are.
    """
    if not HAS_OPERATORS:
        return function
    name, arguments = schema.split("(", 1)
    made = torch.library.custom_op(
        f"fastdetr_mmdet::{name}", function, mutates_args=(), schema=f"({arguments}"
    )
    made.register_fake(fake)
    return made


def differentiable(forward: Any, keep: Callable, backward: Callable) -> Callable:
    """An operator with a gradient, given as to ``torch.library.register_autograd``."""
    if HAS_OPERATORS:
        forward.register_autograd(backward, setup_context=keep)
        return forward

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = forward(*inputs)
            keep(ctx, inputs, output)
            return output

    Function.backward = staticmethod(once_differentiable(backward))  # type: ignore[assignment]
    return Function.apply
