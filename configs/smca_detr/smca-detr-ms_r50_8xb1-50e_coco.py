_base_ = './smca-detr_r50_8xb2-50e_coco.py'

# The paper's multi-scale model (Sec. 3.3): strides 16, 32 and 64.
strides = (16, 32, 64)
num_levels = 3
model = dict(
    backbone=dict(out_indices=(2, 3)),
    neck=dict(in_channels=[1024, 2048], num_outs=num_levels),
    transformer=dict(
        type='DeformableDetrTransformer',  # adds level embeddings
        num_levels=num_levels,
        encoder=dict(
            _delete_=True,
            type='SMCAEncoder',
            pattern=['intra', 'intra', 'multi', 'intra', 'intra'],
            num_heads=8,
            feedforward_channels=1024,
            dropout=0.1),
        decoder=dict(
            feedforward_channels=1024,
            spatial_prior=dict(num_levels=num_levels, strides=strides, unit=32),
            cross_attn=dict(num_levels=num_levels))))

train_dataloader = dict(batch_size=1)
auto_scale_lr = dict(base_batch_size=8)
