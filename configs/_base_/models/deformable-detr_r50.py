# Deformable DETR (arXiv 2010.04159), ResNet-50, four levels: strides 8, 16, 32 and 64.
num_levels = 4
num_classes = 80
embed_dims = 256
num_heads = 8

model = dict(
    type='fastdetr_mmdet.FastDETR',
    num_queries=300,
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=1),
    backbone=dict(
        type='FoldedResNet',
        depth=50,
        num_stages=4,
        out_indices=(1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='pytorch',
        # ImageNet weights by address: 'torchvision://resnet50' would need torchvision
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth')),
    neck=dict(
        type='ChannelMapper',
        in_channels=[512, 1024, 2048],
        kernel_size=1,
        out_channels=embed_dims,
        act_cfg=None,
        norm_cfg=dict(type='GN', num_groups=32),
        # mmcv drops it before a norm; the official weights have it
        bias=True,
        num_outs=num_levels,
        init_cfg=dict(type='Xavier', layer='Conv2d', distribution='uniform')),
    # cell centres
    positional_encoding=dict(type='SinePositionalEncoding', normalize=True, offset=-0.5),
    transformer=dict(
        type='DeformableDetrTransformer',
        embed_dims=embed_dims,
        num_levels=num_levels,
        encoder=dict(
            type='DeformableDetrEncoder',
            num_layers=6,
            num_heads=num_heads,
            num_levels=num_levels,
            num_points=4,
            feedforward_channels=1024,
            dropout=0.1),
        queries=dict(type='LearnedQueries', content='learned', reference='linear'),
        decoder=dict(
            type='DetrDecoder',
            num_layers=6,
            num_heads=num_heads,
            feedforward_channels=1024,
            dropout=0.1,
            post_norm=False,
            self_attn=dict(type='MultiheadSelfAttention'),
            cross_attn=dict(
                type='DeformableAttention', num_levels=num_levels, num_points=4))),
    bbox_head=dict(
        type='FastDETRHead',
        num_classes=num_classes,
        # boxes around a reference point start with an eighth of the image as size
        box_size_bias=-2.0,
        loss_cls=dict(
            type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='GIoULoss', loss_weight=2.0)),
    train_cfg=dict(
        assigner=dict(
            type='HungarianMatcher',
            match_costs=[
                dict(type='FocalLossCost', weight=2.0),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='IoUCost', iou_mode='giou', weight=2.0),
            ])),
    test_cfg=dict(max_per_img=100))
