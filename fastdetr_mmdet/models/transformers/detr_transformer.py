"""The composition of encoder, query initialiser and decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mmdet.registry import MODELS
from torch import nn

from ...structures import DecoderOutput, Memory
from ..parts import Decoder, Encoder, QueryInitialiser, check_role


@MODELS.register_module()
class DetrTransformer(nn.Module):
    """Encoder, query initialiser and decoder, each chosen by its config.

    Paper: DETR, Carion et al. 2020, arXiv 2005.12872, Sec. 3.2.

    Args:
        queries: Query initialiser config.
        decoder: Decoder config.
        encoder: Encoder config; None hands the feature maps to the decoder as they are.
        embed_dims: Width of all parts; divisible by 4.

    Raises:
        ValueError: if two parts do not fit together; the sentence names both and the remedy.
    """

    def __init__(
        self,
        queries: dict,
        decoder: dict,
        encoder: dict | None = None,
        embed_dims: int = 256,
    ) -> None:
        super().__init__()
        if embed_dims % 4:
            raise ValueError(
                f"embed_dims={embed_dims} is not divisible by 4; it must be, because half of the "
                "positional encoding belongs to x and half to y, each half sines and half cosines."
            )
        shared = dict(embed_dims=embed_dims)
        self.embed_dims = embed_dims
        self.encoder = MODELS.build(encoder, default_args=shared) if encoder else nn.Identity()
        self.queries = MODELS.build(queries, default_args=shared)
        self.decoder = MODELS.build(decoder, default_args=shared)
        check_role(self.encoder, Encoder, "transformer.encoder")
        check_role(self.queries, QueryInitialiser, "transformer.queries")
        check_role(self.decoder, Decoder, "transformer.decoder")
        self._check_parts()

    def _check_parts(self) -> None:
        """Refuse parts that would fail in the middle of a forward pass."""
        queries, decoder = self.queries, self.decoder
        made = queries.reference_dims
        prior = type(decoder.layers[0].spatial_prior).__name__
        if decoder.makes_reference and made:
            raise ValueError(
                f"{prior} with predict_reference=True and {type(queries).__name__} both make "
                "reference points; set predict_reference=False in transformer.decoder.spatial_prior"
                f"{_WITHOUT_REFERENCE if hasattr(queries, 'reference') else ''}."
            )
        if decoder.needs_boxes and made != 4:
            who = [type(part).__name__ for part in decoder.layers[0].parts]
            raise ValueError(
                f"{' and '.join(who)} in {type(decoder).__name__} "
                f"{'need' if len(who) > 1 else 'needs'} reference boxes, but "
                f"{type(queries).__name__} makes {'points' if made else 'none'}; choose "
                "LearnedBoxQueries or TwoStageQueries in transformer.queries."
            )
        makes = made or decoder.makes_reference
        if (decoder.needs_reference or decoder.refine) and not makes:
            what = _asking(decoder)
            if not decoder.needs_reference:
                what += " with refine=True"
            raise ValueError(
                f"{what} needs reference points, but {type(queries).__name__} makes none; set "
                "reference='mlp' in transformer.queries or choose another query initialiser."
            )

    def check_levels(self, num_levels: int) -> None:
        """Raise ValueError if a part cannot work on that many feature levels."""
        for part in (self.encoder, self.queries, self.decoder):
            check = getattr(part, "check_levels", None)
            if check is not None:
                check(num_levels)

    def forward(
        self,
        memory: Memory,
        box_branches: Sequence[nn.Module] | None = None,
        proposal_branches: tuple[nn.Module, nn.Module] | None = None,
    ) -> DecoderOutput:
        """Encode, make queries, decode.

        Args:
            memory: Flattened feature maps.
            box_branches: The head's box branch of each layer; needed when the decoder refines.
            proposal_branches: Its class and box branch for encoder proposals, when two-stage.
        """
        memory = self.encoder(memory)
        queries, proposals = self.queries(memory, proposal_branches)
        output = self.decoder(queries, memory, box_branches)
        return replace(output, proposals=proposals)


_WITHOUT_REFERENCE = " or reference='none' in transformer.queries"


def _asking(decoder: Any) -> str:
    """The first part that needs references, and the decoder; or the decoder alone."""
    parts = [p for p in decoder.layers[0].parts if getattr(p, "needs_reference", False)]
    name = type(decoder).__name__
    return f"{type(parts[0]).__name__} in {name}" if parts else name
