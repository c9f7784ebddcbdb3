"""Denoising queries: noisy ground truth that the decoder learns to restore."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...structures import Queries, QueryGroup, Targets
from ...structures.boxes import cxcywh_to_xyxy, inverse_sigmoid, xyxy_to_cxcywh
from ..parts import Field, Made
from .added_queries import AddedQueries, Given
from .hybrid_queries import HybridQueries


@MODELS.register_module()
class DenoisingQueries(AddedQueries):
    """In training, add groups of noisy objects to the queries of another query initialiser.

    Paper: DINO, Zhang et al. 2022, arXiv 2203.03605, Sec. 3.3; DN-DETR, Li et al. 2022, arXiv
    2203.01305, Sec. 4.

    A group has one query per object, with a noisy class and box, and, if contrastive, a second one
    with so much noise that it counts as background. The content of a query is the embedding of its
    noisy class, its reference is the noisy box. Its object is known, so it is not matched. A group
    attends to itself and to the matching queries; matching queries attend to no group. Images with
    fewer objects get empty queries, which count as background. In prediction there are no groups.

    DINO replaces a class with probability 0.25 and moves each corner by up to box_noise / 2 of the
    box's size, or up to twice as far for background. DN-DETR (contrastive=False, 5 groups,
    label_noise=0.2, box_noise=0.4) moves the centre by up to box_noise / 2 of the size and changes
    the size by up to box_noise of it.

    Args:
        queries: Config of the query initialiser of the matching queries; it must make reference
            boxes.
        num_classes: Number of classes; the detector sets it to the head's.
        embed_dims: Width.
        num_queries: Matching queries per image; None: as in ``queries``.
        num_dn_queries: Queries per image with num_groups=None: the number of groups is this number
            divided by the largest number of objects in an image, at least 1.
        num_groups: Number of groups; None: see num_dn_queries.
        contrastive: Whether groups have queries that count as background (DINO), or not (DN-DETR).
        label_noise: Probability with which a class is replaced by a random one, in [0, 1].
        box_noise: Scale of the noise of boxes, at least 0.
        **unknown: Refused; the error lists the names of mmdet's ``dn_cfg`` options here.

    Raises:
        ValueError: if an argument is out of range, or ``queries`` makes no reference boxes; as
            ``AddedQueries``.
        TypeError: if there is an unknown argument.
    """

    outermost = True

    def __init__(
        self,
        queries: dict,
        num_classes: int,
        embed_dims: int,
        num_queries: int | None = None,
        num_dn_queries: int = 100,
        num_groups: int | None = None,
        contrastive: bool = True,
        label_noise: float = 0.25,
        box_noise: float = 1.0,
        **unknown,
    ) -> None:
        if unknown:
            raise TypeError(
                f"DenoisingQueries has no argument {', '.join(unknown)}. For mmdet's dn_cfg, set "
                "label_noise to half of label_noise_scale, box_noise to box_noise_scale, and "
                "num_dn_queries and num_groups without group_cfg."
            )
        super().__init__(queries, embed_dims, num_queries)
        inner = type(self.queries).__name__
        if Field.BOX not in self.makes:
            raise ValueError(
                f"DenoisingQueries: queries={inner} makes no reference boxes, which denoising "
                "needs; use TwoStageQueries or LearnedBoxQueries."
            )
        if isinstance(self.queries, HybridQueries):
            warnings.warn(
                "HybridQueries within DenoisingQueries: reported to lower DINO's AP on COCO from "
                "48.7 to 46.5 (issue 16 of HDETR/H-Deformable-DETR, issue 9 of "
                "xiuqhou/Relation-DETR); leave one of them out.",
                stacklevel=2,
            )
        if num_classes < 1 or num_dn_queries < 1 or (num_groups is not None and num_groups < 1):
            raise ValueError(
                f"DenoisingQueries: num_classes={num_classes}, num_dn_queries={num_dn_queries} and "
                f"num_groups={num_groups} must be at least 1."
            )
        if not 0 <= label_noise <= 1 or box_noise < 0:
            raise ValueError(
                f"DenoisingQueries: label_noise={label_noise} must be in [0, 1] and "
                f"box_noise={box_noise} at least 0."
            )
        self.num_classes = num_classes
        self.num_dn_queries = num_dn_queries
        self.num_groups = num_groups
        self.contrastive = contrastive
        self.label_noise = label_noise
        self.box_noise = box_noise
        self.label_embedding = nn.Embedding(num_classes, embed_dims)

    def add(self, made: Made, given: Given) -> Made:
        """See ``AddedQueries``."""
        queries, proposals = made
        return self._with_groups(queries, given[-1]), proposals

    def _with_groups(self, queries: Queries, targets: Targets) -> Queries:
        bs, _, dims = queries.content.shape
        if targets.num_objects == 0:
            # An empty group, so that all processes have the same losses; in the graph, so that
            # every parameter has a gradient.
            empty = queries.with_content(queries.content + self.label_embedding.weight.sum() * 0)
            nothing = targets.labels.new_zeros(0)
            return empty.with_group(empty, QueryGroup("dn", 0, pairs=(nothing, nothing)))
        most = max(targets.counts)
        copies = self.num_groups or max(1, self.num_dn_queries // most)
        rows = copies * (1 + self.contrastive)
        size = rows * most
        device = queries.content.device
        counts = enumerate(targets.counts)
        firsts = [image * size + i for image, count in counts for i in range(count)]
        # (num_objects,): index of each object's first copy into (bs, size) flattened
        first = torch.tensor(firsts).to(device, non_blocking=True)
        place = first + most * torch.arange(rows, device=device).unsqueeze(1)

        labels, boxes = self.noise(targets, rows)
        flat = place.flatten()
        embedded = self.label_embedding(labels).flatten(0, 1)
        content = embedded.new_zeros(bs * size, dims).index_copy(0, flat, embedded)
        logits = inverse_sigmoid(boxes, eps=1e-3).flatten(0, 1)
        logits = logits.new_zeros(bs * size, 4).index_copy(0, flat, logits)
        logits = logits.view(bs, size, 4)
        pos: Any = queries.pos
        if pos is not None:
            pos = self.queries.position(logits).to(pos.dtype)
        objects = torch.arange(len(firsts), device=device).repeat(copies)
        pairs = place[:: 1 + self.contrastive].flatten(), objects
        content = content.view(bs, size, dims).to(queries.content.dtype)
        noisy = Queries(content, pos, reference_logits=logits)
        return queries.with_group(
            noisy, QueryGroup("dn", size, copies, pairs=pairs), see_first=True
        )

    def noise(self, targets: Targets, rows: int) -> tuple[Tensor, Tensor]:
        """Noisy classes and boxes of all objects; if contrastive, odd rows count as background.

        Shape:
            returns: (rows, num_objects) long, and (rows, num_objects, 4) normalised
                (cx, cy, w, h), within the image if contrastive.
        """
        labels = targets.labels.expand(rows, -1)
        replaced = torch.rand(labels.shape, device=labels.device) < self.label_noise
        labels = torch.where(replaced, torch.randint_like(labels, self.num_classes), labels)
        boxes = targets.boxes.expand(rows, -1, -1)
        sizes = boxes[..., 2:].repeat(1, 1, 2)
        amount = torch.rand_like(boxes)
        if not self.contrastive:
            amount = (2 * amount - 1) * self.box_noise
            amount = amount * amount.new_tensor([0.5, 0.5, 1.0, 1.0])
            return labels, (boxes + amount * sizes).clamp(0, 1)
        amount = amount + torch.arange(rows, device=boxes.device)[:, None, None] % 2
        sign = torch.randint_like(boxes, 2) * 2 - 1
        corners = cxcywh_to_xyxy(boxes) + sign * amount * sizes * (self.box_noise / 2)
        return labels, xyxy_to_cxcywh(corners.clamp(0, 1))
