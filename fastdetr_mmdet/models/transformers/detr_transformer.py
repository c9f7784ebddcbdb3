"""The composition of encoder, query initialiser and decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mmdet.registry import MODELS
from torch import nn

from ...structures import DecoderOutput, Memory, Targets
from ..contracts import check_flow
from ..parts import BranchPair, Decoder, Placed, Transformer


@MODELS.register_module()
class DetrTransformer(Transformer):
    """Encoder, query initialiser and decoder, each chosen by its config.

    Paper: DETR, Carion et al. 2020, arXiv 2005.12872, Sec. 3.2.

    Args:
        queries: Query initialiser config.
        decoder: Decoder config.
        encoder: Encoder config; None passes the feature maps to the decoder directly.
        embed_dims: Width of all parts; divisible by 4.

    Raises:
        ValueError: if two parts do not fit together; the message names both and the fix.
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
                f"embed_dims={embed_dims} is not divisible by 4; the positional encoding has sines "
                "and cosines of x and y, a quarter each."
            )
        shared = dict(embed_dims=embed_dims)
        self.embed_dims = embed_dims
        self.encoder = MODELS.build(encoder, default_args=shared) if encoder else nn.Identity()
        self.queries = MODELS.build(queries, default_args=shared)
        self.decoder = MODELS.build(decoder, default_args=shared)
        check_flow(self.parts)

    @property
    def parts(self) -> list[Placed]:
        """This transformer and all its parts, with their config keys."""
        parts: list[Placed] = [("transformer", self)]
        if not isinstance(self.encoder, nn.Identity):
            parts.append(("transformer.encoder", self.encoder))
        parts.append(("transformer.queries", self.queries))
        parts.append(("transformer.decoder", self.decoder))
        return parts + (self.decoder.parts if isinstance(self.decoder, Decoder) else [])

    def forward(
        self,
        memory: Memory,
        box_branches: Sequence[nn.Module] | None = None,
        proposal_branches: BranchPair = None,
        targets: Targets | None = None,
    ) -> DecoderOutput:
        """Encode, make queries, decode; see ``Transformer.forward``."""
        memory = self.encoder(self.embed_levels(memory))
        queries, proposals = self.queries(memory, proposal_branches, targets)
        output = self.decoder(queries, memory, box_branches)
        return replace(
            output, proposals=proposals, class_logits=queries.class_logits, memory=memory
        )

    def embed_levels(self, memory: Memory) -> Memory:
        """Change the memory before it is encoded; subclasses add level embeddings."""
        return memory
