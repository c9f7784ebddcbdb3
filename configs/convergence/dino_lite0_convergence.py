_base_ = '../_base_/convergence_lite0.py'

# A small DINO of mmdet (arXiv 2203.03605): one encoder and two decoder layers, 100 queries.
attention = dict(
    embed_dims={{_base_.embed_dims}}, num_heads=8, num_levels=3, num_points=4, dropout=0.0)
ffn = dict(embed_dims={{_base_.embed_dims}}, feedforward_channels=256, ffn_drop=0.0)
model = dict(
    _delete_=True,
    type='DINO',
    data_preprocessor={{_base_.model.data_preprocessor}},
    backbone={{_base_.model.backbone}},
    num_queries=100,
    with_box_refine=True,
    as_two_stage=True,
    neck=dict(
        type='ChannelMapper',
        in_channels=[40, 112, 320],
        kernel_size=1,
        out_channels={{_base_.embed_dims}},
        act_cfg=None,
        norm_cfg=dict(type='GN', num_groups=32),
        num_outs=3),
    encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
    decoder=dict(
        num_layers=2,
        return_intermediate=True,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims={{_base_.embed_dims}}, num_heads=8, dropout=0.0),
            cross_attn_cfg=attention,
            ffn_cfg=ffn),
        post_norm_cfg=None),
    positional_encoding=dict(num_feats=64, normalize=True, offset=0.0, temperature=20),
    bbox_head=dict(
        type='DINOHead',
        num_classes={{_base_.model.bbox_head.num_classes}},
        embed_dims={{_base_.embed_dims}},
        sync_cls_avg_factor=True,
        loss_cls=dict(
            type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='GIoULoss', loss_weight=2.0)),
    dn_cfg=dict(
        label_noise_scale=0.5,
        box_noise_scale=1.0,
        group_cfg=dict(dynamic=True, num_groups=None, num_dn_queries=40)),
    train_cfg=dict(
        assigner=dict(
            type='HungarianAssigner',
            match_costs=[
                dict(type='FocalLossCost', weight=2.0),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='IoUCost', iou_mode='giou', weight=2.0),
            ])),
    test_cfg=dict(max_per_img=100))

# The best of 3e-4, 1e-3 and 3e-3 (docs/fast_learning.md), without the recipe's learning rates of
# the proposals' last layers
optim_wrapper = dict(
    optimizer=dict(lr=3e-3),
    paramwise_cfg=dict(custom_keys=dict(_delete_=True, backbone=dict(lr_mult=0.1))))
