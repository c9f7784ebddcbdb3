"""Two-stage queries: the best encoder proposals become the decoder's queries."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...ops.nms import distinct
from ...structures import Memory, Proposals, Queries, Targets
from ...structures.boxes import add_reference, at_least_float32, cxcywh_to_xyxy, inverse_sigmoid
from ..heads.branches import PRIOR_LOGIT
from ..layers.positions import sine_embedding
from ..parts import BranchPair, Field, Made, QueryInitialiser


@MODELS.register_module()
class TwoStageQueries(QueryInitialiser):
    """Every memory token proposes a box; the best scored ones become queries.

    Paper: Deformable DETR, Zhu et al. 2021, arXiv 2010.04159, Sec. 4.2 and A.4. Works with any
    encoder, and without one. As in the official code, content and position are made from the
    embedded proposal boxes, and the boxes are detached.

    Args:
        embed_dims: Width; even.
        num_queries: Queries per image; fewer where the memory has fewer tokens.
        class_aware: False, the official code: proposals tell object from background, by the logit
            of class 0. True: proposals have classes and are ranked by their best class, so the
            encoder learns classes directly (as in DINO, arXiv 2203.03605).
        content: 'box', the official code: content from the embedded box. 'memory': the projected
            token itself, detached. 'learned': a learned vector per query (mixed query selection of
            DINO, Sec. 3.4), and no position; set the decoder's ``reference_pos``, which makes it
            from the reference.
        supervise: Which proposals are matched and have losses: 'all', the official code, or the
            'selected' ones, as in DINO.
        ignore_padding: False, as in the official code: padding competes with other tokens, and
            training lowers its scores. True: padding comes last, so an image gives the same result
            in every batch.
        box_size: Width and height of a proposal of the first level, as a share of the image; it
            doubles with every level.
        num_convs: Number of 3x3 convolutions, each with norm and SiLU, before the class branch, and
            the same number before the box branch, as in dense heads (RTMDet: 2). They replace the
            projection and are shared by all levels. ``content='memory'`` then takes the input of
            the class branch.
        box_form: 'logit', the official code: the box branch moves the initial box in logit space,
            so its output depends on the token's position in the image. 'distance', as in RTMDet: it
            scales the distances from the token to the sides of the initial box; this suits
            convolutions, and tokens near the border can propose too.
        distinct: IoU threshold of NMS on proposals: suppressed ones are used only if there are too
            few others (distinct query selection of DDQ, arXiv 2303.12776, Sec. 3.2, with 0.8; with
            a dense loss, 0.6 leaves fewer duplicates early in training). None: take the top-scoring
            ones. See ``distinct_first``.
        residual_classes: Whether class logits of every decoder layer are added to the proposal's
            detached logits, and start at zero, like boxes: an untrained decoder returns the
            proposals. Queries of groups have no proposal and start at the focal prior. Queries that
            ``distinct`` suppressed start at the focal prior at most. Implies class_aware.

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
        num_convs: int = 0,
        box_form: Literal["logit", "distance"] = "logit",
        distinct: float | None = None,
        residual_classes: bool = False,
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
        if box_form not in ("logit", "distance"):
            raise ValueError(
                f"TwoStageQueries: box_form={box_form!r} must be 'logit' or 'distance'."
            )
        class_aware = class_aware or residual_classes
        self.num_feats = embed_dims // 2
        self.class_aware = class_aware
        if class_aware:
            self.makes = self.makes | {Field.CLASSES}
        if supervise == "all":
            self.makes = self.makes | {Field.DENSE}
        if residual_classes:
            self.makes = self.makes | {Field.LOGITS}
        self.box_form = box_form
        self.distinct = distinct
        self.residual_classes = residual_classes
        # a proposal of the last level must be smaller than the image
        self.level_limit = math.ceil(math.log2(0.99 / box_size)), "box_size"
        self.content = content
        self.supervise = supervise
        self.ignore_padding = ignore_padding
        self.box_size = box_size
        linears = []
        if num_convs == 0:
            self.memory_proj = nn.Linear(embed_dims, embed_dims)
            self.memory_norm = nn.LayerNorm(embed_dims)
            linears.append(self.memory_proj)
        if content == "learned":
            self.query_embedding = nn.Embedding(num_queries, embed_dims)
        else:
            out_dims = 2 * embed_dims if content == "box" else embed_dims
            self.box_proj = nn.Linear(2 * embed_dims, out_dims)
            self.box_norm = nn.LayerNorm(out_dims)
            linears.append(self.box_proj)
        for linear in linears:  # last, so that seeds give the same weights as in older versions
            nn.init.xavier_uniform_(linear.weight)
        self.cls_convs, self.reg_convs = (
            nn.ModuleList(ProposalConv(embed_dims) for _ in range(num_convs)) for _ in range(2)
        )

    def forward(
        self, memory: Memory, proposal_branches: BranchPair = None, targets: Targets | None = None
    ) -> Made:
        """See ``QueryInitialiser.forward``; targets are not used.

        Shape:
            returns: queries with content and pos (bs, k, embed_dims), reference (bs, k, 4),
                k = min(num_queries, num_tokens); proposals of all tokens or of the selected k.
        """
        assert proposal_branches is not None  # the head has them, because makes has PROPOSALS
        classifier, regressor = proposal_branches
        anchors, usable = self.anchors(memory)
        if self.cls_convs:
            tokens, box_tokens = (_convolve(x, memory) for x in (self.cls_convs, self.reg_convs))
        else:
            tokens = box_tokens = self.memory_norm(self.memory_proj(memory.tokens * usable))
        cls_scores, deltas = classifier(tokens), regressor(box_tokens)
        boxes = None
        if self.box_form == "logit":
            box_logits = add_reference(deltas, anchors)
        else:
            boxes = torch.where(usable, _scale_sides(anchors.sigmoid(), deltas), 1.0)
            box_logits = inverse_sigmoid(boxes)
        scores = cls_scores.detach()
        scores = scores.amax(-1) if self.class_aware else scores[..., 0]
        if self.ignore_padding and memory.padding_mask is not None:
            scores = scores.masked_fill(memory.padding_mask, float("-inf"))
        best, repeats = self._choose(scores, box_logits.detach())
        best = best.unsqueeze(-1)
        selected = box_logits.gather(1, best.expand(-1, -1, 4))
        references = selected.detach()
        selected_scores = cls_scores.gather(1, best.expand(-1, -1, cls_scores.shape[-1]))
        if self.supervise == "selected":
            proposals = Proposals(selected_scores, selected.sigmoid())
        else:
            if boxes is None:
                boxes = box_logits.sigmoid()
            proposals = Proposals(
                cls_scores,
                boxes,
                priors=memory.cells(),
                candidates=usable[..., 0],
                level_sizes=tuple(memory.level_sizes),
            )
        content, pos = self._content_and_pos(tokens, best, references)
        queries = Queries(content=content, pos=pos).with_reference(references)
        if self.residual_classes:
            start = selected_scores.detach()
            if repeats is not None:
                start = torch.where(repeats.unsqueeze(-1), start.clamp(max=PRIOR_LOGIT), start)
            queries = replace(queries, class_logits=start)
        return queries, proposals

    def _choose(self, scores: Tensor, box_logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Choose tokens, (bs, k), and tell which of them repeat a better one."""
        k = min(self.num_queries, scores.shape[1])
        if self.distinct is None:
            return scores.topk(k, dim=1).indices, None
        best = scores.topk(min(4 * self.num_queries, scores.shape[1]), dim=1).indices
        boxes = box_logits.gather(1, best.unsqueeze(-1).expand(-1, -1, 4)).sigmoid()
        order, kept = distinct_first(cxcywh_to_xyxy(boxes), self.distinct)
        return best.gather(1, order[:, :k]), ~kept[:, :k]

    def _content_and_pos(
        self, tokens: Tensor, best: Tensor, boxes: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        if self.content == "learned":
            content = self.query_embedding.weight[: best.shape[1]]
            return content.expand(tokens.shape[0], -1, -1), None
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
        """Initial box of each token's proposal, before the sigmoid.

        Shape:
            returns: (bs, num_tokens, 4) (cx, cy, w, h), inf where the token is padding or, with
                box_form='logit', its centre is within 1 % of the border; (bs, num_tokens, 1) bool,
                True elsewhere.
        """
        centres = memory.grid()
        sizes = torch.cat(
            [
                centres.new_full((count,), self.box_size * 2.0**level)
                for level, count in enumerate(memory.level_sizes)
            ]
        )
        boxes = torch.cat([centres, sizes[None, :, None].expand(centres.shape[0], -1, 2)], dim=-1)
        # padding is out of range too, since its centres exceed 1
        margin = 0.01 if self.box_form == "logit" else 0.0
        usable = ((boxes > margin) & (boxes < 1 - margin)).all(-1, keepdim=True)
        return torch.logit(boxes).masked_fill(~usable, float("inf")), usable


class ProposalConv(nn.Module):
    """A 3x3 convolution, a norm over the channels of each cell, and SiLU."""

    def __init__(self, embed_dims: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(embed_dims, embed_dims, 3, padding=1, bias=False)
        self.norm = nn.LayerNorm(embed_dims)

    def forward(self, memory: Memory) -> Memory:
        """Update the tokens; the convolution reads padding as zeros."""
        if memory.padding_mask is not None:
            memory = memory.with_tokens(
                memory.tokens.masked_fill(memory.padding_mask.unsqueeze(-1), 0.0)
            )
        maps = [self.conv(x).flatten(2).transpose(1, 2) for x in memory.maps()]
        return memory.with_tokens(nn.functional.silu(self.norm(torch.cat(maps, dim=1))))


def _convolve(convs: nn.ModuleList, memory: Memory) -> Tensor:
    for conv in convs:
        memory = conv(memory)
    return memory.tokens


def _scale_sides(boxes: Tensor, deltas: Tensor) -> Tensor:
    """Scale the distances from the boxes' centres to their sides by exp(deltas).

    Shape:
        boxes, returns: (..., 4) (cx, cy, w, h)
        deltas: (..., 4) for left, top, right, bottom; clamped to at most 6
    """
    centre, size = boxes.split(2, dim=-1)
    factors = at_least_float32(deltas).clamp(max=6).exp()
    before, after = (factor * size / 2 for factor in factors.split(2, dim=-1))
    return torch.cat([centre + (after - before) / 2, before + after], dim=-1)


def distinct_first(corners: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Order boxes by class-agnostic NMS: kept ones first, then suppressed ones.

    Both keep the given order, best first; see ``distinct``.

    Shape:
        corners: (bs, num_boxes, 4)
        returns: (bs, num_boxes) long, indices; (bs, num_boxes) bool in that order, True: kept
    """
    kept = distinct(corners, threshold)
    place = torch.arange(kept.shape[1], device=kept.device)
    # a constant, because the ONNX exporter cannot multiply by a free size
    order = (place + ~kept * 2**30).argsort(dim=1)
    return order, kept.gather(1, order)
