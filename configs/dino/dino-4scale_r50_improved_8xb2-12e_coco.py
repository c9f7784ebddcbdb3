_base_ = './dino-4scale_r50_8xb2-12e_coco.py'

# mmdet's "improved" DINO: backbone without frozen stages, positions as in Deformable DETR,
# twice the class weight, three times as many denoising queries.
model = dict(
    backbone=dict(frozen_stages=-1),
    positional_encoding=dict(offset=-0.5, temperature=10000),
    transformer=dict(queries=dict(num_dn_queries=300)),
    bbox_head=dict(loss_cls=dict(loss_weight=2.0)))

optim_wrapper = dict(
    optimizer=dict(lr=2e-4),
    paramwise_cfg=dict(custom_keys={'sampling_offsets': dict(lr_mult=0.1)}))
