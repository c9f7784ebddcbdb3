# A small plain detector that learns from random weights in minutes on two CPU cores
_base_ = [
    '../_base_/models/fast-detr_r18-small.py',
    '../_base_/datasets/shapes_detection.py',
    '../_base_/default_runtime.py',
]

model = dict(bbox_head=dict(num_classes=6))

max_epochs = 26
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4),
    clip_grad=dict(max_norm=1.0, norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, by_epoch=False, begin=0, end=384),
    dict(
        type='CosineAnnealingLR', eta_min_ratio=0.001, by_epoch=True, convert_to_iter_based=True),
]
auto_scale_lr = dict(enable=False, base_batch_size=8)

default_hooks = dict(
    logger=dict(interval=32),
    # at validations, and after the last epoch, for test and pictures
    checkpoint=dict(interval=4, max_keep_ckpts=1, save_best=None))
randomness = dict(seed=0)

derived_from = dict(max_epochs=max_epochs)
derived_keys = {'train_cfg.max_epochs': '{max_epochs}'}
