"""mmdet's own DETR detectors, shallow; 256 wide, because mmdet hard-codes that width."""

from __future__ import annotations

import copy

import torch
from mmdet.registry import MODELS
from torch import nn

from support.models import NUM_CLASSES, NUM_QUERIES, randomise, tiny_backbone

EMBED_DIMS = 256
NUM_LAYERS = 2
COSTS = [
    dict(type="FocalLossCost", weight=2.0),
    dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
    dict(type="IoUCost", iou_mode="giou", weight=2.0),
]
HEAD = dict(
    num_classes=NUM_CLASSES,
    embed_dims=EMBED_DIMS,
    loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
    loss_bbox=dict(type="L1Loss", loss_weight=5.0),
    loss_iou=dict(type="GIoULoss", loss_weight=2.0),
)
_ATTENTION = dict(embed_dims=EMBED_DIMS, num_heads=8, dropout=0.0, batch_first=True)
_DEFORMABLE = dict(embed_dims=EMBED_DIMS, num_levels=2, dropout=0.0, batch_first=True)
_FFN = dict(embed_dims=EMBED_DIMS, feedforward_channels=64, ffn_drop=0.0)
_CONDITIONAL = dict(embed_dims=EMBED_DIMS, num_heads=8, attn_drop=0.0)


def _detector(kind: str, levels: int, assigner: str, **parts) -> dict:
    return dict(
        type=kind,
        num_queries=NUM_QUERIES,
        data_preprocessor=dict(type="DetDataPreprocessor"),
        backbone=tiny_backbone(out_indices=tuple(range(4 - levels, 4))),
        neck=dict(
            type="ChannelMapper",
            in_channels=[8, 16, 32, 64][4 - levels :],
            kernel_size=1,
            out_channels=EMBED_DIMS,
            act_cfg=None,
            norm_cfg=None,
            num_outs=levels,
        ),
        train_cfg=dict(assigner=dict(type=assigner, match_costs=COSTS)),
        test_cfg=dict(max_per_img=20),
        **parts,
    )


def detr(assigner: str) -> dict:
    """Mmdet's DETR; softmax classes, hence costs of its own."""
    config = _detector(
        "DETR",
        1,
        assigner,
        positional_encoding=dict(num_feats=EMBED_DIMS // 2, normalize=True),
        encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=_ATTENTION, ffn_cfg=_FFN)),
        decoder=dict(
            num_layers=NUM_LAYERS,
            layer_cfg=dict(self_attn_cfg=_ATTENTION, cross_attn_cfg=_ATTENTION, ffn_cfg=_FFN),
            return_intermediate=True,
        ),
        bbox_head=dict(
            type="DETRHead",
            num_classes=NUM_CLASSES,
            embed_dims=EMBED_DIMS,
            loss_cls=dict(type="CrossEntropyLoss", bg_cls_weight=0.1, class_weight=1.0),
        ),
    )
    costs = [dict(type="ClassificationCost", weight=1.0), *COSTS[1:]]
    config["train_cfg"]["assigner"]["match_costs"] = costs
    return config


def conditional_detr(assigner: str, head: str) -> dict:
    """Mmdet's ConditionalDETR with its head or ours."""
    return _detector(
        "ConditionalDETR",
        1,
        assigner,
        positional_encoding=dict(num_feats=EMBED_DIMS // 2, normalize=True),
        encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=_ATTENTION, ffn_cfg=_FFN)),
        decoder=dict(
            num_layers=NUM_LAYERS,
            layer_cfg=dict(
                self_attn_cfg=dict(_CONDITIONAL, cross_attn=False),
                cross_attn_cfg=dict(_CONDITIONAL, cross_attn=True),
                ffn_cfg=_FFN,
            ),
            return_intermediate=True,
        ),
        bbox_head=_head(head, num_pred_layer=NUM_LAYERS),
    )


def deformable_detr(assigner: str, head: str, refine: bool, two_stage: bool) -> dict:
    """Mmdet's DeformableDETR with its head or ours."""
    return _detector(
        "DeformableDETR",
        2,
        assigner,
        num_feature_levels=2,
        with_box_refine=refine,
        as_two_stage=two_stage,
        positional_encoding=dict(num_feats=EMBED_DIMS // 2, normalize=True, offset=-0.5),
        encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=_DEFORMABLE, ffn_cfg=_FFN)),
        decoder=dict(
            num_layers=NUM_LAYERS,
            return_intermediate=True,
            layer_cfg=dict(self_attn_cfg=_ATTENTION, cross_attn_cfg=_DEFORMABLE, ffn_cfg=_FFN),
            post_norm_cfg=None,
        ),
        bbox_head=_head(head),
    )


def _head(kind: str, **only_ours) -> dict:
    if kind == "FastDETRHead":
        return dict(HEAD, type=kind, **only_ours)
    return dict(HEAD, type=kind, sync_cls_avg_factor=True)


def build(config: dict, seed: int = 0) -> nn.Module:
    """An mmdet detector with random weights, in training mode."""
    torch.manual_seed(seed)
    model = MODELS.build(copy.deepcopy(config))
    model.init_weights()
    return randomise(model, seed, scale=0.05).train()


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """From a detector with mmdet's head to the same detector with ours."""
    names = {
        "bbox_head.fc_cls.": "bbox_head.cls_branches.0.",
        "bbox_head.reg_ffn.layers.0.0.": "bbox_head.reg_branches.0.0.",
        "bbox_head.reg_ffn.layers.1.": "bbox_head.reg_branches.0.2.",
        "bbox_head.fc_reg.": "bbox_head.reg_branches.0.4.",
    }
    weights = source.state_dict()
    for old, new in names.items():
        weights = {key.replace(old, new): value for key, value in weights.items()}
    wanted = target.state_dict()
    if source.bbox_head.__class__.__name__ == "DeformableDETRHead":
        # mmdet stores a shared branch once per layer
        assert set(wanted) <= set(weights)
        weights = {key: weights[key] for key in wanted}
    target.load_state_dict(weights, strict=True)
