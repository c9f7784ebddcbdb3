# 50 epochs, learning rate divided by 10 after 40; the backbone learns ten times slower.
max_epochs = 50
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

# without an end the schedule ends with the training
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[40], gamma=0.1)]
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='GroupedOptimWrapperConstructor',
    # one kernel instead of a dozen operations per parameter
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4, fused=True),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}))

# base_batch_size: GPUs x images per GPU for which lr is set; used by --auto-scale-lr
auto_scale_lr = dict(enable=False, base_batch_size=16)
