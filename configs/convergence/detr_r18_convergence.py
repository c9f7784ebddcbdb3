_base_ = '../_base_/convergence.py'

# mmdet's own DETR (arXiv 2005.12872), with its softmax over classes and background, matcher and
# layers.
attention = dict(
    embed_dims={{_base_.embed_dims}},
    num_heads={{_base_.num_heads}},
    dropout={{_base_.dropout}},
    batch_first=True)
feed_forward = dict(
    embed_dims={{_base_.embed_dims}},
    feedforward_channels={{_base_.feedforward_channels}},
    num_fcs=2,
    ffn_drop={{_base_.dropout}},
    act_cfg=dict(type='ReLU', inplace=True))
model = dict(
    _delete_=True,
    type='DETR',
    num_queries={{_base_.model.num_queries}},
    data_preprocessor={{_base_.model.data_preprocessor}},
    backbone={{_base_.model.backbone}},
    neck={{_base_.model.neck}},
    encoder=dict(
        num_layers=2, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=feed_forward)),
    decoder=dict(
        num_layers=2,
        layer_cfg=dict(
            self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=feed_forward),
        return_intermediate=True),
    positional_encoding=dict(num_feats=48, normalize=True),
    bbox_head=dict(
        type='DETRHead',
        num_classes={{_base_.model.bbox_head.num_classes}},
        embed_dims={{_base_.embed_dims}},
        loss_cls=dict(
            type='CrossEntropyLoss',
            bg_cls_weight=0.1,
            use_sigmoid=False,
            loss_weight=1.0,
            class_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='GIoULoss', loss_weight=2.0)),
    train_cfg=dict(
        assigner=dict(
            type='HungarianAssigner',
            match_costs=[
                dict(type='ClassificationCost', weight=1.0),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='IoUCost', iou_mode='giou', weight=2.0),
            ])),
    test_cfg={{_base_.model.test_cfg}})
