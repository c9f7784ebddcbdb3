_base_ = '../_base_/convergence_lite0.py'

# RTMDet (arXiv 2212.07784) without its own backbone and neck: dense, one-to-many, soft labels
model = dict(
    _delete_=True,
    type='RTMDet',
    data_preprocessor={{_base_.model.data_preprocessor}},
    backbone={{_base_.model.backbone}},
    neck={{_base_.model.neck}},
    bbox_head=dict(
        type='RTMDetSepBNHead',  # each map has its own norms
        num_classes={{_base_.model.bbox_head.num_classes}},
        in_channels={{_base_.embed_dims}},
        feat_channels={{_base_.embed_dims}},
        stacked_convs=2,
        with_objectness=False,
        exp_on_reg=True,
        share_conv=True,
        pred_kernel_size=1,
        norm_cfg=dict(type='BN'),
        act_cfg=dict(type='SiLU'),
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32]),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0)),
    train_cfg=dict(
        assigner=dict(type='DynamicSoftLabelAssigner', topk=13),
        allowed_border=-1,
        pos_weight=-1,
        debug=False),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.001,
        nms=dict(type='nms', iou_threshold=0.65),
        max_per_img=100))

# the best of 3e-4, 1e-3 and 3e-3 (docs/fast_learning.md)
optim_wrapper = dict(
    optimizer=dict(lr=3e-3),
    paramwise_cfg=dict(bypass_duplicate=True))  # maps share convolutions
