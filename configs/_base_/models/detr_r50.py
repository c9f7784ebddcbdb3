# Base of all models on COCO: ImageNet ResNet-50, last level only, six encoder and decoder layers,
# losses and matching. Methods add queries and parts of the decoder.
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
        out_indices=(3, ),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='pytorch',
        # a URL, because 'torchvision://resnet50' needs torchvision
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth')),
    neck=dict(
        type='ChannelMapper',
        in_channels=[2048],
        kernel_size=1,
        out_channels=embed_dims,
        act_cfg=None,
        num_outs=1,
        # as in the official codes; mmcv's initialisation differs and has zero biases
        init_cfg=dict(type='TorchDefault', layer='Conv2d')),
    positional_encoding=dict(type='SinePositionalEncoding', normalize=True),
    transformer=dict(
        type='DetrTransformer',
        embed_dims=embed_dims,
        encoder=dict(
            type='DetrEncoder',
            num_layers=6,
            num_heads=num_heads,
            feedforward_channels=2048,
            dropout=0.1),
        decoder=dict(
            num_layers=6, num_heads=num_heads, feedforward_channels=2048, dropout=0.1)),
    bbox_head=dict(
        type='FastDETRHead',
        num_classes=num_classes,
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
