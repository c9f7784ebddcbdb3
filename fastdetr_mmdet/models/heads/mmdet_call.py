"""Accept the calls of mmdet's own DETR detectors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ...structures import DecoderOutput, Proposals, Targets
from ...structures.boxes import inverse_sigmoid


def takes_mmdet_call(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let mmdet's detectors call a head's ``forward``, ``loss`` or ``predict``.

    They pass ``hidden_states`` and so on by name; other calls reach the method unchanged.
    """

    @functools.wraps(method)
    def called(
        self: Any,
        *args: Any,
        hidden_states: Tensor | None = None,
        batch_data_samples: Sequence | None = None,
        **kwargs: Any,
    ) -> Any:
        if hidden_states is None:
            return method(self, *args, **kwargs)
        names = ("references", "enc_outputs_class", "enc_outputs_coord", "dn_meta")
        given = {name: kwargs.pop(name) for name in names if name in kwargs}
        output = decoder_output(hidden_states, **given)
        if batch_data_samples is None:
            return method(self, output, **kwargs)
        if method.__name__ == "loss":
            targets = Targets.from_data_samples(batch_data_samples, hidden_states.device)
            return method(self, output, targets, **kwargs)
        return method(self, output, batch_data_samples, **kwargs)

    return called


def decoder_output(
    hidden_states: Tensor,
    references: Tensor | Sequence[Tensor] | None = None,
    enc_outputs_class: Tensor | None = None,
    enc_outputs_coord: Tensor | None = None,
    dn_meta: dict | None = None,
) -> DecoderOutput:
    """Turn the arguments of mmdet's detectors into a ``DecoderOutput``.

    Args:
        hidden_states: (num_layers, bs, num_queries, embed_dims).
        references: Normalised, (bs, num_queries, 2 or 4): one tensor for all layers, or one per
            layer, as list or stacked (surplus ones are ignored).
        enc_outputs_class: Logits of encoder proposals, (bs, num_tokens, num_classes), or None.
        enc_outputs_coord: Their normalised (cx, cy, w, h), (bs, num_tokens, 4), or None.
        dn_meta: Denoising queries of mmdet's ``DINO``.

    Raises:
        ValueError: if there are denoising queries.
    """
    if dn_meta is not None:
        raise ValueError(
            "FastDETRHead has no loss for the denoising queries that mmdet's DINO trains with; "
            "use DINOHead there (its train_cfg.assigner may be HungarianMatcher)."
        )
    num_layers = len(hidden_states)
    logits: tuple[Tensor, ...] | None = None
    if isinstance(references, Tensor) and references.dim() == 3:
        logits = (inverse_sigmoid(references),) * num_layers
    elif references is not None:
        logits = tuple(inverse_sigmoid(reference) for reference in references[:num_layers])
    proposals = None
    if enc_outputs_class is not None and enc_outputs_coord is not None:
        proposals = Proposals(enc_outputs_class, enc_outputs_coord)
    return DecoderOutput(hidden_states, logits, proposals=proposals)
