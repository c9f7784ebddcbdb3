_base_ = './smca-detr_r50_8xb2-50e_coco.py'

# The multi-scale variant that the authors released (44.4 AP): strides 8, 16, 32 and 64,
# convolutions in the encoder; the decoder sees the first level halved, at stride 16.
# The authors' later file: num_layers=5, kernel_size=5, share_cross_level=False.
strides = (16, 16, 32, 64)
num_levels = 4
model = dict(
    mask_from=(None, None, None, 2),  # as in the released code
    backbone=dict(out_indices=(1, 2, 3)),
    neck=dict(in_channels=[512, 1024, 2048], num_outs=num_levels),
    transformer=dict(
        type='DeformableDetrTransformer',  # adds level embeddings
        num_levels=num_levels,
        encoder=dict(
            _delete_=True,
            type='SMCAConvEncoder',
            num_layers=6,
            num_levels=num_levels,
            kernel_size=7,
            share_cross_level=True,
            reduce_first=True,
            feedforward_channels=1024,
            dropout=0.1),
        decoder=dict(
            feedforward_channels=1024,
            spatial_prior=dict(num_levels=num_levels, strides=strides, unit=32),
            cross_attn=dict(num_levels=num_levels))),
    test_cfg=dict(max_per_img=500))

train_dataloader = dict(batch_size=1)
auto_scale_lr = dict(base_batch_size=8)
