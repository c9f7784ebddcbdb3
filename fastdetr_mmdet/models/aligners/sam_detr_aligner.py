"""Semantic aligner of SAM-DETR (Zhang et al. 2022, arXiv 2203.06883)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...ops import align_regions
from ...structures import Memory, Queries, SalientPoints
from ...structures.boxes import at_least_float32, cxcywh_to_xyxy
from ..layers import init_xavier
from ..layers.positions import sine_embedding
from ..parts import Aligner, Field


@MODELS.register_module()
class SAMSemanticAligner(Aligner):
    """Re-samples every query from the memory, so that both share a feature space.

    Paper: SAM-DETR, Zhang et al. 2022, arXiv 2203.06883, Sec. 3.2 to 3.4, Eq. 3 to 7.

    RoIAlign cuts the features of the query's reference box out of the memory (Eq. 3); a small
    network finds one salient point per head in them (Eq. 4); features and sine embedding of these
    points become the query of the cross-attention (Eq. 5, 6), each re-weighted by a gate made from
    the previous content (Eq. 7).

    As in the official code, boxes are not clipped. Outside of the map RoIAlign reads zeros; on
    padding it reads the encoder's output there, so a batch's padding changes the result slightly
    (``ignore_padding`` avoids that). Boxes and embeddings get no gradient. RoIAlign runs once (the
    official code runs it twice, with the same result). With several levels, which the paper does
    not have, features are averaged over the levels.

    The content of denoising queries is their class embedding, which re-sampling would reduce to a
    gate. So their content is added again after re-sampling. Their boxes still train the salient
    points, and the cross-attention gets image features as in prediction. SAM-DETR++ (Zhang et al.
    2022, arXiv 2207.14172) was trained with denoising as well; neither the paper nor public code
    says how it keeps the class.

    Args:
        embed_dims: Width; divisible by 4.
        roi_size: Side of RoIAlign's output, in cells.
        ignore_padding: False, as in the official code, whose weights expect it: padding is read
            like image. True: the map ends where the padding begins, so an image gives the same
            result in every batch; costs one RoIAlign call per image.
        **context: As for ``Aligner``; every head has a salient point.
    """

    reads = frozenset({Field.BOX})

    def __init__(
        self, embed_dims: int, roi_size: int = 7, ignore_padding: bool = False, **context
    ) -> None:
        super().__init__(embed_dims, **context)
        num_heads = self.num_heads
        self.roi_size = roi_size
        self.ignore_padding = ignore_padding
        squeezed = embed_dims // 4
        self.squeeze = nn.Conv2d(embed_dims, squeezed, 1)
        self.point_branch = nn.Sequential(
            nn.Linear(squeezed * roi_size**2, embed_dims),
            nn.ReLU(),
            nn.Linear(embed_dims, 2 * embed_dims),
            nn.ReLU(),
            nn.Linear(2 * embed_dims, 2 * embed_dims),
            nn.ReLU(),
            nn.Linear(2 * embed_dims, num_heads * (4 if self.predict_scales else 2)),
        )
        self.content_gate = nn.Linear(embed_dims, num_heads * embed_dims)
        self.pos_gate = nn.Linear(embed_dims, num_heads * embed_dims)
        init_xavier(self)
        # The official code zeroes this weight too, but its transformer initialises it again
        # afterwards.
        last = self.point_branch[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.bias)

    def forward(self, queries: Queries, memory: Memory) -> Queries:
        """See ``Aligner.forward``."""
        assert queries.reference is not None
        bs, num_queries, embed_dims = queries.content.shape
        reference = queries.reference.detach()
        regions = self.cut_out(reference, memory.level(0))
        for level in range(1, memory.num_levels):
            regions = regions + self.cut_out(reference, memory.level(level))
        if memory.num_levels > 1:
            regions = regions / memory.num_levels
        hidden = F.relu(self.squeeze(regions.to(self.squeeze.weight.dtype))).flatten(1)
        predicted = at_least_float32(self.point_branch(hidden))
        inside = predicted[:, : 2 * self.num_heads].tanh().unflatten(1, (1, self.num_heads, 2))
        content = F.grid_sample(
            regions, inside, padding_mode="zeros", align_corners=False
        )  # (bs * num_queries, embed_dims, 1, num_heads)
        content = content[:, :, 0].transpose(1, 2).unflatten(0, (bs, num_queries))
        content = content.to(queries.content.dtype)

        centre, size = queries.reference.unsqueeze(2).split(2, dim=-1)
        points = centre + 0.5 * size * inside[:, 0].unflatten(0, (bs, num_queries))
        pos = sine_embedding(points.detach(), num_feats=embed_dims // 2).to(content.dtype)
        per_head = (self.num_heads, embed_dims)
        content = content * self.content_gate(queries.content).unflatten(-1, per_head).sigmoid()
        pos = pos * self.pos_gate(queries.content).unflatten(-1, per_head).sigmoid()
        if any(group.pairs is not None for group in queries.groups):
            sizes = [group.size for group in queries.groups]
            own = queries.content.unsqueeze(2).split(sizes, dim=1)
            parts = zip(queries.groups, content.split(sizes, dim=1), own, strict=True)
            content = torch.cat([x if g.pairs is None else x + y for g, x, y in parts], dim=1)
        scales = None
        if self.predict_scales:
            scales = predicted[:, 2 * self.num_heads :].unflatten(1, (self.num_heads, 2))
            scales = scales.unflatten(0, (bs, num_queries))
        return queries.with_salient(SalientPoints(content, pos, points, scales))

    def cut_out(self, reference: Tensor, memory: Memory) -> Tensor:
        """Features of the reference boxes.

        Shape:
            reference: (bs, num_queries, 4), normalised (cx, cy, w, h)
            memory: of one level
            returns: (bs * num_queries, embed_dims, roi_size, roi_size), float32 at least
        """
        (h, w), ratios = memory.spatial_shapes[0], memory.valid_ratios[:, 0]
        x1, y1, x2, y2 = cxcywh_to_xyxy(reference).unbind(-1)
        boxes = torch.stack([x1 * w, y1 * h, x2 * w, y2 * h], dim=-1)
        boxes = boxes * ratios.repeat(1, 2)[:, None]
        features = at_least_float32(memory.maps()[0])
        if not self.ignore_padding or memory.valid_shapes is None:
            return align_regions(features, boxes, self.roi_size)
        valid = zip(features, boxes, memory.valid_shapes[0], strict=True)
        return torch.cat(
            [align_regions(x[None, :, :h, :w], b[None], self.roi_size) for x, b, (h, w) in valid]
        )
