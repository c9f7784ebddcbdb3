_base_ = [
    '../_base_/models/dino_r50.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_50e.py',
    '../_base_/default_runtime.py',
]

# 12 epochs, learning rate divided by 10 after 11
max_epochs = 12
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[11], gamma=0.1)]
derived_keys = {'param_scheduler.0.milestones': '[{max_epochs*0.9}]'}
