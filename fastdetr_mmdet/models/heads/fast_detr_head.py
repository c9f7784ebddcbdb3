"""The one head of the family: classes and reference-relative boxes of all decoder layers."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from mmdet.models.losses import FocalLoss
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.utils import reduce_mean
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ...ops.focal import focal_loss_sum
from ...structures.boxes import add_reference, cxcywh_to_xyxy, inverse_sigmoid
from ...structures.targets import Targets
from ..matchers import HungarianMatcher, Matches
from .branches import Branches, box_branch, class_branch
from .top_k import top_k

# What ``HungarianMatcher.match`` takes: logits, boxes, targets, what a layer is called in messages.
_Call = tuple[Tensor, Tensor, Targets, str]


@MODELS.register_module()
class FastDETRHead(BaseModule):
    """Class logits and boxes of every layer at once, set loss, and top-k detections.

    Paper: DETR, Carion et al. 2020, arXiv 2005.12872, Sec. 3.1, with the focal loss and the
    reference-relative boxes of Deformable DETR, Zhu et al. 2021, arXiv 2010.04159, A.3:
    ``box = sigmoid(branch(hidden) + reference)`` in logit space. Losses are summed and divided by
    the number of objects, averaged over processes.

    Works in ``FastDETR`` and in mmdet's own ``DETR``, ``ConditionalDETR``, ``DABDETR`` and
    ``DeformableDETR``; mmdet's ``DINO`` predicts with it, but cannot be trained with it.

    Args:
        num_classes: Classes, without background.
        embed_dims: Width of the hidden states; must equal the transformer's.
        num_reg_fcs: Hidden layers of a box branch.
        zero_init_box: Whether box branches start at zero, that is at the reference; else as torch
            draws them (SMCA's official code).
        box_size_bias: What the first box branch starts with as logit of width and height: 0 is
            half of the image, -2 an eighth (Deformable DETR with reference points).
        share_pred_layer: One class and one box branch for all layers, or one of each per layer.
        num_pred_layer: Layers that are predicted from, encoder proposals counted as one more (as
            mmdet's detectors count); the detector sets it.
        as_two_stage: Whether there are branches for encoder proposals; the detector sets it.
        class_aware_proposals: Whether proposals are told apart by class, or only from background
            (every object is then of class 0); the detector sets it.
        loss_cls: Loss of class logits; a sigmoid one.
        loss_bbox: Loss of normalised (cx, cy, w, h).
        loss_iou: Loss of pixel (x1, y1, x2, y2).
        train_cfg: ``assigner``: matcher config; default ``HungarianMatcher``.
        test_cfg: ``max_per_img``: detections per image, at most num_queries * num_classes; 100.
        init_cfg: As in mmengine.

    Raises:
        ValueError: if num_classes is below 1 or loss_cls is not a sigmoid loss on class indices.
    """

    def __init__(
        self,
        num_classes: int,
        embed_dims: int = 256,
        num_reg_fcs: int = 2,
        zero_init_box: bool = True,
        box_size_bias: float = 0.0,
        share_pred_layer: bool = True,
        num_pred_layer: int = 6,
        as_two_stage: bool = False,
        class_aware_proposals: bool = False,
        loss_cls: dict | None = None,
        loss_bbox: dict | None = None,
        loss_iou: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if num_classes < 1:
            raise ValueError(f"bbox_head.num_classes={num_classes} must be at least 1.")
        self.num_classes = num_classes
        self.embed_dims = embed_dims
        self.share_pred_layer = share_pred_layer
        self.num_pred_layer = num_pred_layer
        self.as_two_stage = as_two_stage
        self.class_aware_proposals = class_aware_proposals
        self.train_cfg = train_cfg or {}
        self.test_cfg = test_cfg or {}
        self.assigner = TASK_UTILS.build(
            self.train_cfg.get("assigner") or dict(type="HungarianMatcher")
        )
        self.loss_cls = MODELS.build(
            loss_cls
            or dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0)
        )
        self.loss_bbox = MODELS.build(loss_bbox or dict(type="L1Loss", loss_weight=5.0))
        self.loss_iou = MODELS.build(loss_iou or dict(type="GIoULoss", loss_weight=2.0))
        self._check_loss_cls()
        self.num_decoder_layers = num_pred_layer - int(as_two_stage)
        branches = (1 if share_pred_layer else self.num_decoder_layers) + int(as_two_stage)
        shared_by = self.num_decoder_layers if share_pred_layer else 1
        # As in the official codes all layers' branches start as copies of one.
        cls_branch = class_branch(embed_dims, num_classes)
        reg_branch = box_branch(embed_dims, num_reg_fcs, zero_init_box)
        self.cls_branches = Branches([deepcopy(cls_branch) for _ in range(branches)], shared_by)
        self.reg_branches = Branches([deepcopy(reg_branch) for _ in range(branches)], shared_by)
        if box_size_bias:
            nn.init.constant_(self.reg_branches[0][-1].bias[2:], box_size_bias)

    def _check_loss_cls(self) -> None:
        name = type(self.loss_cls).__name__
        if not getattr(self.loss_cls, "use_sigmoid", False):
            raise ValueError(
                f"bbox_head.loss_cls of type {name} is a softmax loss, but FastDETRHead has no "
                "background class; set use_sigmoid=True or use FocalLoss."
            )
        logits, labels = torch.zeros(2, self.num_classes), torch.tensor([0, self.num_classes])
        try:
            self.loss_cls(logits, labels, reduction_override="none")
        except (AssertionError, TypeError, ValueError) as error:  # QualityFocalLoss, VarifocalLoss
            raise ValueError(
                f"bbox_head.loss_cls of type {name} does not take class indices as targets, which "
                "is what FastDETRHead has; use FocalLoss or CrossEntropyLoss(use_sigmoid=True)."
            ) from error

    @property
    def box_branches(self) -> list[nn.Module]:
        """The box branch of every layer, for decoders that refine."""
        return [self.reg_branches[layer] for layer in range(self.num_decoder_layers)]

    @property
    def proposal_branches(self) -> tuple[nn.Module, nn.Module] | None:
        """Class and box branch for encoder proposals, if there are any: the last ones."""
        return (self.cls_branches[-1], self.reg_branches[-1]) if self.as_two_stage else None

    @property
    def fc_reg(self) -> nn.Module:
        """The box branch by the name under which mmdet's ``DABDETR`` refines with it."""
        if not self.share_pred_layer:
            raise ValueError(
                "mmdet's DABDETR refines with one box branch for all layers, but "
                "bbox_head.share_pred_layer=False; leave it out there."
            )
        return self.reg_branches[0]

    def forward(
        self,
        hidden_states: Tensor,
        references: Tensor | Sequence[Tensor] | None = None,
        reference_logits: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Classes and boxes of all layers.

        Args:
            hidden_states: Decoder outputs.
            references: Normalised references, as mmdet's detectors give them: one tensor for all
                layers, or one per layer, in a list or stacked (further ones are ignored).
            reference_logits: The same before the sigmoid, one per layer, as our decoders give them.

        Shape:
            hidden_states: (num_layers, bs, num_queries, embed_dims)
            references, reference_logits: (bs, num_queries, 2 or 4) each
            returns: logits (num_layers, bs, num_queries, num_classes) and normalised
                (cx, cy, w, h) (num_layers, bs, num_queries, 4); the boxes always in float32.
        """
        num_layers = hidden_states.shape[0]
        logits = self._reference_logits(num_layers, references, reference_logits)
        if self.share_pred_layer:
            cls_scores = self.cls_branches[0](hidden_states)
            deltas = self.reg_branches[0](hidden_states)
            boxes = [add_reference(*pair) for pair in zip(deltas, logits, strict=True)]
            return cls_scores, torch.stack(boxes).sigmoid()
        layers = [
            self._forward_layer(index, hidden_states[index], logits[index])
            for index in range(num_layers)
        ]
        return torch.stack([cls for cls, _ in layers]), torch.stack([box for _, box in layers])

    def _forward_layer(
        self, index: int, hidden: Tensor, reference_logits: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        branch = 0 if self.share_pred_layer else index
        delta = self.reg_branches[branch](hidden)
        return self.cls_branches[branch](hidden), add_reference(delta, reference_logits).sigmoid()

    @staticmethod
    def _reference_logits(
        num_layers: int,
        references: Tensor | Sequence[Tensor] | None,
        reference_logits: Sequence[Tensor] | None,
    ) -> Sequence[Tensor | None]:
        """One entry per layer, whichever form the references came in."""
        if reference_logits is not None:
            return reference_logits
        if references is None:
            return [None] * num_layers
        if isinstance(references, Tensor) and references.dim() == 3:
            return [inverse_sigmoid(references)] * num_layers
        return [inverse_sigmoid(reference) for reference in references[:num_layers]]

    def loss(
        self,
        hidden_states: Tensor,
        references: Tensor | Sequence[Tensor] | None = None,
        batch_data_samples: Sequence = (),
        reference_logits: Sequence[Tensor] | None = None,
        enc_outputs_class: Tensor | None = None,
        enc_outputs_coord: Tensor | None = None,
        dn_meta: dict | None = None,
    ) -> dict[str, Tensor]:
        """Losses of all layers, by mmdet's names.

        Args:
            hidden_states, references, reference_logits: As for ``forward``.
            batch_data_samples: With ``gt_instances``.
            enc_outputs_class: Logits of encoder proposals, (bs, num_tokens, num_classes), or None.
            enc_outputs_coord: Their normalised (cx, cy, w, h), (bs, num_tokens, 4), or None.
            dn_meta: Denoising queries of mmdet's ``DINO``; a ValueError if there are any.

        Returns:
            ``loss_cls``, ``loss_bbox``, ``loss_iou`` of the last layer, ``d0.loss_cls`` ... of the
            others, ``enc_loss_cls`` ... of the proposals; scalars, weighted.
        """
        if dn_meta is not None:
            raise ValueError(
                "FastDETRHead has no loss for the denoising queries that mmdet's DINO trains with; "
                "use DINOHead there (its train_cfg.assigner may be HungarianMatcher)."
            )
        cls_scores, boxes = self(hidden_states, references, reference_logits)
        targets = Targets.from_data_samples(batch_data_samples, cls_scores.device)
        calls = [(cls_scores, boxes, targets, "decoder layer")]
        if enc_outputs_class is not None and enc_outputs_coord is not None:
            wanted = targets
            if not self.class_aware_proposals:
                wanted = replace(targets, labels=torch.zeros_like(targets.labels))
            proposals = enc_outputs_class[None], enc_outputs_coord[None]
            calls.insert(0, (*proposals, wanted, "encoder proposals, layer"))
        *per_proposal, per_layer = self._compare_all(calls)
        losses: dict[str, Tensor] = {}
        for found in per_proposal:
            losses |= {f"enc_{name}": values[0] for name, values in found.items()}
        last = cls_scores.shape[0] - 1
        for name, values in per_layer.items():
            losses[name] = values[last]
        for layer in range(last):
            for name, values in per_layer.items():
                losses[f"d{layer}.{name}"] = values[layer]
        return losses

    def loss_by_feat(
        self, cls_scores: Tensor, boxes: Tensor, targets: Targets, what: str = "decoder layer"
    ) -> dict[str, Tensor]:
        """Match and compare, all layers in one call of each loss; ``what`` names them in errors.

        Shape:
            cls_scores: (num_layers, bs, num_queries, num_classes)
            boxes: (num_layers, bs, num_queries, 4) normalised (cx, cy, w, h)
            returns: ``loss_cls``, ``loss_bbox``, ``loss_iou``, each (num_layers,)
        """
        return self._compare_all([(cls_scores, boxes, targets, what)])[0]

    def _compare_all(self, calls: list[_Call]) -> list[dict[str, Tensor]]:
        """Losses of each call, after one wait for the matches of all."""
        matches = self._match(calls)
        return [self._compare(*call[:3], own) for call, own in zip(calls, matches, strict=True)]

    def _compare(
        self, cls_scores: Tensor, boxes: Tensor, targets: Targets, matches: Matches
    ) -> dict[str, Tensor]:
        num_layers, bs, num_queries = cls_scores.shape[:3]
        # As a tensor, so that the mean over processes never leaves the device.
        num_boxes = torch.full((1,), float(targets.num_objects), device=cls_scores.device)
        num_boxes = reduce_mean(num_boxes).clamp(min=1)

        wanted_classes = targets.labels[matches.object_index]
        loss_cls = self._class_loss(cls_scores.float(), matches.query_index, wanted_classes)
        losses = {"loss_cls": loss_cls / num_boxes}

        predicted = boxes.flatten(0, 2)[matches.query_index]  # (num_pairs, 4)
        if len(predicted) == 0:
            # No object in the batch: zero, but in the graph, so every parameter has a gradient.
            nothing = boxes.flatten(1).sum(1) * 0
            return losses | {"loss_bbox": nothing, "loss_iou": nothing}
        wanted = targets.boxes[matches.object_index]
        image = torch.div(matches.query_index, num_queries, rounding_mode="floor") % bs
        scale = targets.scales[image]
        loss_bbox = self.loss_bbox(predicted, wanted, reduction_override="none")
        loss_iou = self.loss_iou(
            cxcywh_to_xyxy(predicted) * scale,
            cxcywh_to_xyxy(wanted) * scale,
            reduction_override="none",
        )
        losses["loss_bbox"] = loss_bbox.view(num_layers, -1).sum(1) / num_boxes
        losses["loss_iou"] = loss_iou.view(num_layers, -1).sum(1) / num_boxes
        return losses

    def _class_loss(self, cls_scores: Tensor, query_index: Tensor, classes: Tensor) -> Tensor:
        """Sum over each layer, (num_layers,)."""
        num_layers, num_classes = cls_scores.shape[0], cls_scores.shape[-1]
        loss = self.loss_cls
        if type(loss) is FocalLoss and not (loss.activated or cls_scores.is_cuda):
            # On CUDA mmdet has a kernel of its own, on the CPU a chain of operations.
            logits = cls_scores.flatten(1, 2)
            total = focal_loss_sum(logits, query_index, classes, loss.alpha, loss.gamma)
            return loss.loss_weight * total
        labels = query_index.new_full((cls_scores[..., 0].numel(),), num_classes)
        labels[query_index] = classes
        per_entry = loss(cls_scores.flatten(0, 2), labels, reduction_override="none")
        return per_entry.view(num_layers, -1).sum(1)

    def _match(self, calls: list[_Call]) -> list[Matches]:
        if getattr(type(self.assigner), "match", None) is HungarianMatcher.match:
            return self.assigner.match_all(calls)
        if hasattr(self.assigner, "match"):
            return [self.assigner.match(*call) for call in calls]
        return [self._match_with_mmdets(*call[:3]) for call in calls]

    def _match_with_mmdets(self, cls_scores: Tensor, boxes: Tensor, targets: Targets) -> Matches:
        """Per layer and image with one of mmdet's assigners."""
        num_layers, bs, num_queries, _ = cls_scores.shape
        query_index, object_index = [], []
        for layer in range(num_layers):
            start = 0
            for image, count in enumerate(targets.counts):
                scale = targets.scales[image]
                w, h = scale[:2].tolist()
                result = self.assigner.assign(
                    InstanceData(
                        scores=cls_scores[layer, image].detach(),
                        bboxes=cxcywh_to_xyxy(boxes[layer, image].detach()) * scale,
                    ),
                    InstanceData(
                        labels=targets.labels[start : start + count],
                        bboxes=cxcywh_to_xyxy(targets.boxes[start : start + count]) * scale,
                    ),
                    dict(img_shape=(h, w)),
                )
                matched = (result.gt_inds > 0).nonzero()[:, 0]
                query_index.append(matched + (layer * bs + image) * num_queries)
                object_index.append(result.gt_inds[matched] - 1 + start)
                start += count
        return Matches(torch.cat(query_index), torch.cat(object_index))

    def predict(
        self,
        hidden_states: Tensor,
        references: Tensor | Sequence[Tensor] | None = None,
        batch_data_samples: Sequence = (),
        rescale: bool = True,
        reference_logits: Sequence[Tensor] | None = None,
    ) -> list[InstanceData]:
        """Detections of the last layer: the best (query, class) pairs of each image.

        Args:
            hidden_states, references, reference_logits: As for ``forward``.
            batch_data_samples: With ``img_shape`` and, if the image was resized, ``scale_factor``
                (w, h), by which boxes are rescaled.
            rescale: Whether boxes are in pixels of the original image or of the network's input.

        Returns:
            Per image ``bboxes`` (n, 4) pixel xyxy clipped to the image, ``scores`` (n,) in [0, 1],
            descending, and ``labels`` (n,); n = min(max_per_img, num_queries * num_classes).
        """
        cls_scores, boxes = self.last_layer(hidden_states, reference_logits, references)
        metas = [sample.metainfo for sample in batch_data_samples]
        return self.predict_by_feat(cls_scores, boxes, metas, rescale)

    def last_layer(
        self, hidden_states: Tensor, reference_logits: Any = None, references: Any = None
    ) -> tuple[Tensor, Tensor]:
        """Of ``forward`` the last layer: (bs, num_queries, num_classes), (bs, num_queries, 4)."""
        last = hidden_states.shape[0] - 1
        logits = self._reference_logits(last + 1, references, reference_logits)
        return self._forward_layer(last, hidden_states[last], logits[last])

    def predict_by_feat(
        self, cls_scores: Tensor, boxes: Tensor, metas: Sequence[dict], rescale: bool
    ) -> list[InstanceData]:
        """Top-k over queries and classes of one layer.

        Shape:
            cls_scores: (bs, num_queries, num_classes) logits
            boxes: (bs, num_queries, 4) normalised (cx, cy, w, h)
        """
        scores, labels, corners = top_k(cls_scores, boxes, self.test_cfg.get("max_per_img", 100))
        results = []
        for image, meta in enumerate(metas):
            h, w = meta["img_shape"][:2]
            size = corners.new_tensor([w, h, w, h])
            bboxes = (corners[image] * size).clamp(min=corners.new_zeros(4), max=size)
            if rescale:
                bboxes = bboxes / bboxes.new_tensor([*meta.get("scale_factor", (1.0, 1.0))] * 2)
            results.append(InstanceData(bboxes=bboxes, scores=scores[image], labels=labels[image]))
        return results
