"""Transformer with a learned embedding per feature level."""

from __future__ import annotations

from dataclasses import replace

import torch
from mmdet.registry import MODELS
from torch import nn

from ...structures import Memory
from ..contracts import contract
from ..parts import Field
from .detr_transformer import DetrTransformer


@MODELS.register_module()
class DeformableDetrTransformer(DetrTransformer):
    """``DetrTransformer`` that adds a learned vector per level to the positional encoding.

    Paper: Deformable DETR, Zhu et al. 2021, arXiv 2010.04159, Sec. 4.1, scale-level embedding. As
    in the official code, a single level has one too. If no part reads positions (deformable
    cross-attention without an encoder), there is no embedding.

    Args:
        num_levels: Feature levels.
        **kwargs: As for ``DetrTransformer``.

    Raises:
        ValueError: as ``DetrTransformer``; when the model is built, if the neck gives a different
            number of levels.
    """

    def __init__(self, num_levels: int = 4, **kwargs) -> None:
        super().__init__(**kwargs)
        self.num_levels = num_levels
        # an unread embedding would get no gradient, which DistributedDataParallel refuses
        self.level_embed: nn.Parameter | None = None
        if any(Field.POS in contract(*placed).reads for placed in self.parts):
            self.level_embed = nn.Parameter(torch.randn(num_levels, self.embed_dims))

    def embed_levels(self, memory: Memory) -> Memory:
        """Add each level's vector to its positional encoding."""
        if self.level_embed is None:
            return memory
        parts = memory.pos.split(memory.level_sizes, dim=1)
        pos = [part + embed for part, embed in zip(parts, self.level_embed, strict=True)]
        return replace(memory, pos=torch.cat(pos, dim=1))
