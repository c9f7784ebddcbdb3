"""The one head of the family: classes and reference-relative boxes of all decoder layers."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.utils import reduce_mean
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ...structures import DecoderOutput, QueryGroup, Targets
from ...structures.boxes import add_reference
from ..matchers import DENSE_ASSIGNERS, AssignerMatcher, Call, Matcher
from ..parts import BranchPair
from .branches import PRIOR_LOGIT, Branches, box_branch, class_branch
from .class_loss import check_class_loss
from .mmdet_call import takes_mmdet_call
from .set_loss import calls_of, compare, given_matches
from .top_k import top_k

TRAIN_KEYS = ("assigner", "one_to_many")
TEST_KEYS = ("max_per_img", "score_thr", "nms", "separate_sizes")


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
        zero_init_box: Whether box branches start at zero, so that boxes start at the reference;
            False: torch's default initialisation, as in SMCA's official code.
        box_size_bias: Initial logit of width and height in the first box branch: 0 is half of the
            image, -2 an eighth (Deformable DETR with reference points).
        share_pred_layer: One class and one box branch for all layers, or one of each per layer.
        num_pred_layer: Number of predicting layers, plus one for encoder proposals, as in mmdet;
            the detector sets it.
        as_two_stage: Whether there are branches for encoder proposals; the detector sets it.
        class_aware_proposals: Whether proposals have classes; if not, every object has class 0. The
            detector sets it.
        residual_classes: Whether class branches of decoder layers start at zero, because their
            logits are added to the proposals'; the detector sets it.
        sync_cls_avg_factor: Ignored; mmdet's configs set it. The number of objects is always
            averaged over processes.
        loss_cls: Sigmoid loss of class logits: mmdet's ``FocalLoss``, ``CrossEntropyLoss``,
            ``QualityFocalLoss`` or ``VarifocalLoss``, or this package's ``MALLoss``, ``IABCELoss``
            or ``PositionSupervisedLoss``. ``bg_cls_weight`` of mmdet's configs is ignored: there is
            no background class.
        proposal_loss: ``DenseProposalLoss`` config; None: proposals are trained like one more
            decoder layer.
        loss_bbox: Loss of normalised (cx, cy, w, h).
        loss_iou: Loss of pixel (x1, y1, x2, y2).
        train_cfg: ``assigner``: matcher config, this package's or mmdet's; default
            ``HungarianMatcher``. ``one_to_many``: matcher of the one-to-many states of a decoder
            with mixed_supervision; default ``ScoreMatcher``.
        test_cfg: ``max_per_img``: detections per image, at most num_queries * num_classes; 100.
            ``score_thr``: only detections with a higher score are returned; 0. ``nms``: within each
            class, as ``dict(type='nms', iou_threshold=0.7)``; None. NMS helps after short
            trainings: a decoder learns to find objects before it learns to avoid duplicates.
        init_cfg: As in mmengine.

    Raises:
        ValueError: if num_classes is below 1, loss_cls is not a sigmoid loss on class indices, or
            train_cfg or test_cfg has an unknown key.
        TypeError: if a loss config has an unknown argument.
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
        residual_classes: bool = False,
        sync_cls_avg_factor: bool = True,
        loss_cls: dict | None = None,
        loss_bbox: dict | None = None,
        loss_iou: dict | None = None,
        proposal_loss: dict | None = None,
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
        self.train_cfg = _known("train_cfg", train_cfg, TRAIN_KEYS)
        self.test_cfg = _known("test_cfg", test_cfg, TEST_KEYS)
        nms = self.test_cfg.get("nms")
        if nms is not None and not (
            isinstance(nms, dict) and {*nms} == {"type", "iou_threshold"} and nms["type"] == "nms"
        ):
            raise ValueError(
                f"model.test_cfg.nms={nms} must be dict(type='nms', iou_threshold=...) or None."
            )
        self.assigner = self._matcher("assigner", "HungarianMatcher")
        self.one_to_many = self._matcher("one_to_many", "ScoreMatcher")
        loss_cls = dict(
            loss_cls
            or dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0)
        )
        loss_cls.pop("bg_cls_weight", None)
        l1, giou = dict(type="L1Loss", loss_weight=5.0), dict(type="GIoULoss", loss_weight=2.0)
        self.loss_cls = _build_loss("loss_cls", loss_cls)
        self.loss_bbox = _build_loss("loss_bbox", loss_bbox or l1)
        self.loss_iou = _build_loss("loss_iou", loss_iou or giou)
        check_class_loss(self.loss_cls, num_classes)
        self.proposal_loss = MODELS.build(proposal_loss) if proposal_loss else None
        self.num_decoder_layers = num_pred_layer - int(as_two_stage)
        branches = (1 if share_pred_layer else self.num_decoder_layers) + int(as_two_stage)
        shared_by = self.num_decoder_layers if share_pred_layer else 1
        # As in the official codes, all layers' branches start as copies of one.
        cls_branch = class_branch(embed_dims, num_classes)
        reg_branch = box_branch(embed_dims, num_reg_fcs, zero_init_box)
        self.cls_branches = Branches([deepcopy(cls_branch) for _ in range(branches)], shared_by)
        self.reg_branches = Branches([deepcopy(reg_branch) for _ in range(branches)], shared_by)
        if residual_classes:
            for branch in self.cls_branches[: branches - int(as_two_stage)]:
                nn.init.zeros_(branch.weight)
                nn.init.zeros_(branch.bias)
        if box_size_bias:
            nn.init.constant_(self.reg_branches[0][-1].bias[2:], box_size_bias)

    def _matcher(self, key: str, default: str) -> Matcher:
        matcher = TASK_UTILS.build(self.train_cfg.get(key) or dict(type=default))
        if isinstance(matcher, DENSE_ASSIGNERS):
            raise ValueError(
                f"model.train_cfg.{key} of type {type(matcher).__name__} assigns cells of feature "
                f"maps, not queries; use {default} there; this assigner is for "
                "bbox_head.proposal_loss."
            )
        return matcher if isinstance(matcher, Matcher) else AssignerMatcher(matcher)

    @property
    def nms_iou(self) -> float | None:
        """IoU threshold of NMS in prediction; None: no NMS."""
        return (self.test_cfg.get("nms") or {}).get("iou_threshold")

    @property
    def box_branches(self) -> list[nn.Module]:
        """Box branch of every layer, for decoders that refine."""
        return [self.reg_branches[layer] for layer in range(self.num_decoder_layers)]

    @property
    def proposal_branches(self) -> BranchPair:
        """Class and box branch for encoder proposals, the last branches; None if not two-stage."""
        return (self.cls_branches[-1], self.reg_branches[-1]) if self.as_two_stage else None

    def __getattr__(self, name: str) -> Any:
        """``fc_reg``, mmdet's ``DABDETR``'s name for the box branch that it refines with.

        Not a property, because torch replaces the message of a property's AttributeError.
        """
        if name != "fc_reg":
            return super().__getattr__(name)
        if not self.share_pred_layer:
            raise AttributeError(
                "mmdet's DABDETR refines with one box branch for all layers, but "
                "bbox_head.share_pred_layer=False; leave it out there."
            )
        return self.reg_branches[0]

    @takes_mmdet_call
    def forward(self, output: DecoderOutput) -> tuple[Tensor, Tensor]:
        """Classes and boxes of all layers.

        Shape:
            returns: logits (num_layers, bs, num_queries, num_classes) and normalised
                (cx, cy, w, h) (num_layers, bs, num_queries, 4); the boxes in float32 at least.
        """
        hidden, known = output.hidden_states, len(output.box_logits)
        deltas = self._per_layer(self.reg_branches, hidden, known)
        references = _references(output)[known:]
        added = [add_reference(*pair) for pair in zip(deltas, references, strict=True)]
        boxes = torch.stack([*output.box_logits, *added]).sigmoid()
        return _add_classes(self._per_layer(self.cls_branches, hidden), output), boxes

    def _per_layer(self, branches: Branches, hidden: Tensor, start: int = 0) -> Tensor:
        """Branches of layer ``start`` and later, (num_layers - start, bs, num_queries, dims)."""
        if self.share_pred_layer:
            return branches[0](hidden[start:])
        layers = range(start, len(hidden))
        return torch.stack([branches[layer](hidden[layer]) for layer in layers])

    @takes_mmdet_call
    def loss(self, output: DecoderOutput, targets: Targets) -> dict[str, Tensor]:
        """Losses of all layers under mmdet's names.

        Returns:
            ``loss_cls``, ``loss_bbox``, ``loss_iou`` of the last layer, ``d0.loss_cls`` ... of the
            others, ``enc_loss_cls`` ... of the proposals, ``dn_loss_cls``, ``d0.dn_loss_cls`` ...
            of a group of queries named dn, ``o2m_loss_cls`` ... of a decoder's one_to_many states;
            weighted scalars.
        """
        cls_scores, boxes = self(output)
        calls = calls_of(cls_scores, boxes, targets, output.groups, "decoder layer")
        if output.one_to_many is not None:
            calls.append(self._one_to_many_call(output, targets, calls[0].group))
        proposals = output.proposals
        of_encoder = []
        losses: dict[str, Tensor] = {}
        if proposals is not None:
            wanted = targets
            if not self.class_aware_proposals:
                wanted = replace(targets, labels=torch.zeros_like(targets.labels))
            if self.proposal_loss is None:
                found = proposals.cls_scores[None], proposals.boxes[None]
                of_encoder = calls_of(*found, wanted, proposals.groups, "encoder proposals, layer")
            else:
                dense = self.proposal_loss(proposals, wanted)
                losses |= {f"enc_{name}": value for name, value in dense.items()}
        compared = self._compare_all(of_encoder + calls)
        for own in compared[: len(of_encoder)]:
            losses |= {f"enc_{name}": values[0] for name, values in own.items()}
        per_layer = {
            name: values for own in compared[len(of_encoder) :] for name, values in own.items()
        }
        last = len(output.hidden_states) - 1
        for name, values in per_layer.items():
            losses[name] = values[last]
        for layer in range(last):
            for name, values in per_layer.items():
                losses[f"d{layer}.{name}"] = values[layer]
        return losses

    def _one_to_many_call(self, output: DecoderOutput, targets: Targets, first: QueryGroup) -> Call:
        """Predictions from the matching queries' states before self-attention; same branches."""
        assert output.one_to_many is not None
        own, references, classes = slice(first.size), output.reference_logits, output.class_logits
        states = DecoderOutput(
            output.one_to_many[:, :, own],
            references and tuple(reference[:, own] for reference in references),
            class_logits=None if classes is None else classes[:, own],
        )
        cls_scores, boxes = self(states)
        group = replace(first, name="o2m")
        return Call(cls_scores, boxes, targets, "decoder layer", group, self.one_to_many)

    def loss_by_feat(
        self, cls_scores: Tensor, boxes: Tensor, targets: Targets, what: str = "decoder layer"
    ) -> dict[str, Tensor]:
        """Match, then call each loss once for all layers; ``what`` names layers in errors.

        Shape:
            cls_scores: (num_layers, bs, num_queries, num_classes)
            boxes: (num_layers, bs, num_queries, 4) normalised (cx, cy, w, h)
            returns: ``loss_cls``, ``loss_bbox``, ``loss_iou``, each (num_layers,)
        """
        return self._compare_all(calls_of(cls_scores, boxes, targets, (), what))[0]

    def _compare_all(self, calls: list[Call]) -> list[dict[str, Tensor]]:
        """Losses of each call; the device is waited for once."""
        found = iter(self.assigner.match_all([c for c in calls if c.group.pairs is None]))
        # A tensor, so that averaging over processes stays on the device.
        counts = [float(call.targets.num_objects * call.group.copies) for call in calls]
        num_boxes = torch.tensor(counts).to(calls[0].boxes.device, non_blocking=True)
        num_boxes = reduce_mean(num_boxes).clamp(min=1)
        losses = self.loss_cls, self.loss_bbox, self.loss_iou
        matches = [next(found) if c.group.pairs is None else given_matches(c) for c in calls]
        shares = zip(calls, matches, num_boxes.split(1), strict=True)
        return [compare(*share, *losses) for share in shares]

    @takes_mmdet_call
    def predict(
        self, output: DecoderOutput, data_samples: Sequence, rescale: bool = True
    ) -> list[InstanceData]:
        """Detections of the last layer: the best (query, class) pairs of each image.

        Args:
            output: What the decoder made.
            data_samples: With ``img_shape`` and, if the image was resized, ``scale_factor`` (w, h).
            rescale: Whether boxes are in pixels of the original image instead of the network's
                input.

        Returns:
            Per image ``bboxes`` (n, 4) pixel xyxy clipped to the image, ``scores`` (n,) in [0, 1],
            descending, and ``labels`` (n,); n = min(max_per_img, num_queries * num_classes) minus
            those at or below score_thr or suppressed by NMS.
        """
        metas = [sample.metainfo for sample in data_samples]
        return self.predict_by_feat(*self.last_layer(output), metas, rescale)

    def last_layer(self, output: DecoderOutput) -> tuple[Tensor, Tensor]:
        """``forward`` for the last layer: (bs, num_queries, num_classes), (bs, num_queries, 4)."""
        last, hidden = len(output.hidden_states) - 1, output.hidden_states[-1]
        branch = 0 if self.share_pred_layer else last
        logits = add_reference(self.reg_branches[branch](hidden), _references(output)[last])
        return _add_classes(self.cls_branches[branch](hidden), output), logits.sigmoid()

    def predict_by_feat(
        self, cls_scores: Tensor, boxes: Tensor, metas: Sequence[dict], rescale: bool
    ) -> list[InstanceData]:
        """Top-k over queries and classes of one layer.

        Shape:
            cls_scores: (bs, num_queries, num_classes) logits
            boxes: (bs, num_queries, 4) normalised (cx, cy, w, h)
        """
        count = self.test_cfg.get("max_per_img", 100)
        scores, labels, corners = top_k(cls_scores, boxes, count, self.nms_iou)
        sizes = [[*meta["img_shape"][1::-1]] * 2 for meta in metas]
        unscaled = (1.0, 1.0)
        factors = [
            [*(meta.get("scale_factor", unscaled) if rescale else unscaled)] * 2 for meta in metas
        ]
        # One copy to the device for all images.
        both = torch.tensor([sizes, factors], dtype=corners.dtype).unsqueeze(2)
        size, factor = both.to(corners.device, non_blocking=True)  # (bs, 1, 4) each
        bboxes = torch.minimum((corners * size).clamp(min=0), size) / factor
        results = [
            InstanceData(bboxes=boxes, scores=scores, labels=labels)
            for boxes, scores, labels in zip(bboxes, scores, labels, strict=True)
        ]
        score_thr = self.test_cfg.get("score_thr", 0.0)
        if score_thr > 0 or self.nms_iou is not None:
            results = [result[result.scores > score_thr] for result in results]
        return results


def _references(output: DecoderOutput) -> Sequence[Tensor | None]:
    """References of all layers, or None for each."""
    return output.reference_logits or [None] * len(output.hidden_states)


def _add_classes(scores: Tensor, output: DecoderOutput) -> Tensor:
    """Classes of a layer, (..., bs, num_queries, num_classes), from its branch's output.

    Queries of groups come after those with proposal logits, and start at the focal prior.
    """
    start = output.class_logits
    if start is None:
        return scores
    missing = scores.shape[-2] - start.shape[-2]
    return scores + nn.functional.pad(start, (0, 0, 0, missing), value=PRIOR_LOGIT)


def _build_loss(key: str, cfg: dict) -> nn.Module:
    """Build a loss; the TypeError explains options left over from a base config's loss."""
    try:
        return MODELS.build(cfg)
    except TypeError as error:
        raise TypeError(
            f"bbox_head.{key} of type {cfg.get('type')} cannot be built: {error}. To drop options "
            f"of a base config's loss, set {key}=dict(_delete_=True, ...)."
        ) from error


def _known(name: str, cfg: dict | None, keys: Sequence[str]) -> dict:
    """Return a part of the config; raise ValueError if it has other keys."""
    unknown = sorted(set(cfg or {}) - set(keys))
    if unknown:
        raise ValueError(
            f"model.{name} has {', '.join(unknown)}, which nothing reads. Known keys: "
            f"{', '.join(keys)}."
        )
    return dict(cfg or {})
