_base_ = './sam-detr_r50_4xb4-50e_coco.py'

# Strides 8, 16 and 32; two decoder layers on each, from coarse to fine.
num_levels = 3
model = dict(
    backbone=dict(out_indices=(1, 2, 3)),
    neck=dict(
        in_channels=[512, 1024, 2048],
        norm_cfg=dict(type='GN', num_groups=32),
        bias=True,
        num_outs=num_levels),
    transformer=dict(
        type='DeformableDetrTransformer',
        num_levels=num_levels,
        encoder=dict(
            _delete_=True,
            type='DeformableDetrEncoder',
            num_layers=6,
            num_heads=8,
            num_levels=num_levels,
            num_points=4,
            feedforward_channels=1024,
            dropout=0.1),
        decoder=dict(level_schedule=(2, 2, 1, 1, 0, 0))))

train_dataloader = dict(batch_size=2)
