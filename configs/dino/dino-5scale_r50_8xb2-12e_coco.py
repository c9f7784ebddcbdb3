_base_ = './dino-4scale_r50_8xb2-12e_coco.py'

# Strides 4 to 64.
num_levels = 5
model = dict(
    backbone=dict(out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[256, 512, 1024, 2048], num_outs=num_levels),
    transformer=dict(
        num_levels=num_levels,
        encoder=dict(num_levels=num_levels),
        decoder=dict(cross_attn=dict(num_levels=num_levels))))
