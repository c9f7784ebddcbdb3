_base_ = './sam-detr_r50_4xb4-50e_coco.py'

model = dict(
    # the official code normalises its input in trainings of less than 25 epochs
    neck=dict(norm_cfg=dict(type='GN', num_groups=32), bias=True))

max_epochs = 12
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[10], gamma=0.1)]
