_base_ = './deformable-detr_r50_16xb2-50e_coco.py'

# Last level only.
num_levels = 1
model = dict(
    backbone=dict(out_indices=(3, )),
    neck=dict(in_channels=[2048], num_outs=num_levels),
    transformer=dict(
        num_levels=num_levels,
        encoder=dict(num_levels=num_levels),
        decoder=dict(cross_attn=dict(num_levels=num_levels))))
