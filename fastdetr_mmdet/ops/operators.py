"""Register functions as opaque operators for ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable

# torch >= 2.4; with older versions compiled models have graph breaks or plain operators.
HAS_OPERATORS = hasattr(torch.library, "custom_op")


def operator(schema: str, function: Callable, fake: Callable) -> Any:
    """Register a function as an operator; return it unchanged if torch is too old.

    Args:
        schema: As in ``name(Tensor x, int size) -> Tensor``; results share no memory with ``x``.
        function: Implementation.
        fake: Returns empty results of the right shape, type and device.
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
    """Give an operator a gradient; arguments as for ``torch.library.register_autograd``."""
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
