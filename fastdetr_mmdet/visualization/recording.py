"""Record the arguments of the decoder's cross-attentions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ..models.cross_attention import Explanation
from ..structures import Memory, Queries


@dataclass(frozen=True)
class LayerCall:
    """One call of a decoder layer's cross-attention: the part and its arguments."""

    part: nn.Module
    queries: Queries
    memory: Memory
    spatial_prior: Tensor | None = None

    def explain(self) -> Explanation:
        """The part's explanation of this call; empty without an ``explain`` method."""
        explain = getattr(self.part, "explain", None)
        arguments = self.queries, self.memory, self.spatial_prior
        return Explanation() if explain is None else explain(*arguments)


@dataclass
class Recording:
    """Calls in the last forward pass: the memory of all levels, and one entry per layer."""

    memory: Memory | None = None
    layers: list[LayerCall] = field(default_factory=list)


@contextmanager
def record(model: nn.Module) -> Iterator[Recording]:
    """Record calls within the ``with`` block, by torch's forward hooks.

    The hooks compute nothing and are removed at the end, also after an exception.

    Raises:
        TypeError: if the model has no decoder layers with a cross-attention.
    """
    decoder = find_decoder(model)
    recording = Recording()

    def start(_decoder: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        recording.layers.clear()  # a second pass replaces the first
        recording.memory = kwargs["memory"] if "memory" in kwargs else args[1]

    def note(part: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        names = ("queries", "memory", "spatial_prior")
        given = dict(zip(names, args, strict=False)) | kwargs
        recording.layers.append(LayerCall(part, **given))

    parts = [layer.cross_attn for layer in decoder.layers]
    with ExitStack() as stack:
        for module, hook in [(decoder, start), *((part, note) for part in parts)]:
            handle = module.register_forward_pre_hook(hook, with_kwargs=True)
            stack.callback(handle.remove)
        yield recording


def find_decoder(model: nn.Module) -> Any:
    """Return the decoder of a FastDETR; raise TypeError for other models."""
    decoder: Any = getattr(getattr(model, "transformer", None), "decoder", None)
    layers = getattr(decoder, "layers", None)
    if not layers or not all(hasattr(layer, "cross_attn") for layer in layers):
        raise TypeError(
            f"{type(model).__name__} has no transformer.decoder whose layers have a cross_attn, so "
            "there is no attention to show; give a FastDETR, for example from init_detector."
        )
    return decoder
