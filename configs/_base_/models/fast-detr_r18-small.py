# The mix that learned fastest from random weights on a CPU: a narrow ResNet-18 with an FPN,
# class-aware two-stage queries, deformable cross-attention, refinement; no encoder.
num_classes = 80
embed_dims = 128

model = dict(
    type='fastdetr_mmdet.FastDETR',
    num_queries=40,
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=1),
    backbone=dict(
        type='FoldedResNet',
        depth=18,
        base_channels=32,
        stem_channels=32,
        num_stages=4,
        out_indices=(2, 3),
        frozen_stages=-1,
        norm_cfg=dict(type='BN'),
        norm_eval=False,
        style='pytorch'),
    neck=dict(type='FPN', in_channels=[128, 256], out_channels=embed_dims, num_outs=2),
    transformer=dict(
        type='DetrTransformer',
        embed_dims=embed_dims,
        # no encoder: the neck mixes levels
        queries=dict(
            type='TwoStageQueries', class_aware=True, content='memory', box_size=0.2),
        decoder=dict(
            type='DetrDecoder',
            num_layers=2,
            num_heads=8,
            feedforward_channels=256,
            dropout=0.0,
            refine=True,
            cross_attn=dict(type='DeformableAttention', num_levels=2))),
    bbox_head=dict(type='FastDETRHead', num_classes=num_classes, share_pred_layer=False),
    test_cfg=dict(max_per_img=100))
