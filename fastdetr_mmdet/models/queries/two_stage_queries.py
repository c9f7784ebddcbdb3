"""Two-stage queries: the best encoder proposals become the decoder's queries."""

from __future__ import annotations

import math
from typing import Literal

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...structures import Memory, Proposals, Queries, Targets
from ...structures.boxes import add_reference
from ..layers.positions import sine_embedding
from ..parts import Field, QueryInitialiser


@MODELS.register_module()
class TwoStageQueries(QueryInitialiser):
    """Every memory token proposes a box; the best scored ones become queries.

    Paper: Deformable DETR, Zhu et al. 2021, arXiv 2010.04159, Sec. 4.2 and A.4. Works behind any
    encoder, and on feature maps alone. As in the official code, content and position are both made
    from the embedded proposal boxes, and the boxes are detached.

    Args:
        embed_dims: Width; even.
        num_queries: Queries per image; fewer where the memory has fewer tokens.
        class_aware: False, the official code: proposals tell object from background, by the logit
            of class 0. True: proposals carry classes and the best class counts, which teaches the
            encoder classes directly (as DINO, arXiv 2203.03605, does).
        content: 'box', the official code: content from the embedded box. 'memory': the projected
            token itself, detached. 'learned': a learned vector per query (mixed query selection of
            DINO, Sec. 3.4), and no position: the decoder makes one of the reference, best with its
            ``reference_pos``.
        supervise: Which proposals are matched and have losses: 'all', the official code, or the
            'selected' ones, as in DINO.
        ignore_padding: False, the official code: tokens of padding compete for the queries like all
            others, with a score that training makes low. True: they come last, so that an image
            gives the same result in every batch.
        box_size: Width and height of a proposal of the first level, as a share of the image; it
            doubles with every level.

    Raises:
        ValueError: if an argument is out of range.
    """

    makes = frozenset({Field.BOX, Field.PROPOSALS})

    def __init__(
        self,
        embed_dims: int,
        num_queries: int = 300,
        class_aware: bool = False,
        content: Literal["box", "memory", "learned"] = "box",
        supervise: Literal["all", "selected"] = "all",
        ignore_padding: bool = False,
        box_size: float = 0.05,
    ) -> None:
        super().__init__(embed_dims, num_queries)
        if content not in ("box", "memory", "learned"):
            raise ValueError(
                f"TwoStageQueries: content={content!r} must be 'box', 'memory' or 'learned'."
            )
        if supervise not in ("all", "selected"):
            raise ValueError(
                f"TwoStageQueries: supervise={supervise!r} must be 'all' or 'selected'."
            )
        if not 0.01 < box_size < 0.99:
            raise ValueError(f"TwoStageQueries: box_size={box_size} must be within 0.01 and 0.99.")
        self.num_feats = embed_dims // 2
        self.class_aware = class_aware
        if class_aware:
            self.makes = self.makes | {Field.CLASSES}
        # at the last level a proposal is smaller than the image
        self.level_limit = math.ceil(math.log2(0.99 / box_size)), "box_size"
        self.content = content
        self.supervise = supervise
        self.ignore_padding = ignore_padding
        self.box_size = box_size
        self.memory_proj = nn.Linear(embed_dims, embed_dims)
        self.memory_norm = nn.LayerNorm(embed_dims)
        linears = [self.memory_proj]
        if content == "learned":
            self.query_embedding = nn.Embedding(num_queries, embed_dims)
        else:
            out_dims = 2 * embed_dims if content == "box" else embed_dims
            self.box_proj = nn.Linear(2 * embed_dims, out_dims)
            self.box_norm = nn.LayerNorm(out_dims)
            linears.append(self.box_proj)
        for linear in linears:  # at the end, so that a seed goes on giving the weights it gave
            nn.init.xavier_uniform_(linear.weight)

    def forward(
        self,
        memory: Memory,
        proposal_branches: tuple[nn.Module, nn.Module] | None = None,
        targets: Targets | None = None,
    ) -> tuple[Queries, Proposals]:
        """Propose and choose.

        Args:
            memory: Encoder output.
            proposal_branches: The head's class and box branch for proposals.
            targets: Not used.

        Shape:
            returns: queries with content and pos (bs, k, embed_dims), reference (bs, k, 4),
                k = min(num_queries, num_tokens); proposals of all tokens or of the selected k.
        """
        assert proposal_branches is not None  # the head has them, since PROPOSALS is declared
        classifier, regressor = proposal_branches
        anchors, usable = self.anchors(memory)
        tokens = self.memory_norm(self.memory_proj(memory.tokens * usable))
        cls_scores = classifier(tokens)
        box_logits = add_reference(regressor(tokens), anchors)
        scores = cls_scores.detach()
        scores = scores.amax(-1) if self.class_aware else scores[..., 0]
        if self.ignore_padding and memory.padding_mask is not None:
            scores = scores.masked_fill(memory.padding_mask, float("-inf"))
        best = scores.topk(min(self.num_queries, scores.shape[1]), dim=1).indices.unsqueeze(-1)
        selected = box_logits.gather(1, best.expand(-1, -1, 4))
        boxes = selected.detach()
        if self.supervise == "selected":
            cls_scores = cls_scores.gather(1, best.expand(-1, -1, cls_scores.shape[-1]))
            box_logits = selected
        proposals = Proposals(cls_scores, box_logits.sigmoid())
        content, pos = self._content_and_pos(tokens, best, boxes)
        return Queries(content=content, pos=pos).with_reference(boxes), proposals

    def _content_and_pos(
        self, tokens: Tensor, best: Tensor, boxes: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        if self.content == "learned":
            content = self.query_embedding.weight[: best.shape[1]]
            return content.expand(len(tokens), -1, -1), None
        made = self._embed(boxes)
        if self.content == "box":
            pos, content = made.chunk(2, dim=-1)
            return content, pos
        return tokens.detach().gather(1, best.expand(-1, -1, tokens.shape[-1])), made

    def position(self, reference_logits: Tensor) -> Tensor:
        """See ``QueryInitialiser.position``."""
        return self._embed(reference_logits)[..., : self.embed_dims]

    def _embed(self, boxes: Tensor) -> Tensor:
        embedded = sine_embedding(boxes.sigmoid(), self.num_feats, order="xywh")
        return self.box_norm(self.box_proj(embedded.to(self.box_proj.weight.dtype)))

    def anchors(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """The box that each token's proposal starts from, before the sigmoid.

        Shape:
            returns: (bs, num_tokens, 4) (cx, cy, w, h), inf where the token is padding or its
                centre is within 1 % of the border; (bs, num_tokens, 1) bool, True elsewhere.
        """
        centres = memory.grid()
        sizes = torch.cat(
            [
                centres.new_full((count,), self.box_size * 2.0**level)
                for level, count in enumerate(memory.level_sizes)
            ]
        )
        boxes = torch.cat([centres, sizes[None, :, None].expand(centres.shape[0], -1, 2)], dim=-1)
        # padding is out of range too: there the centres exceed 1
        usable = ((boxes > 0.01) & (boxes < 0.99)).all(-1, keepdim=True)
        return torch.logit(boxes).masked_fill(~usable, float("inf")), usable
