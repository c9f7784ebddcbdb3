_base_ = './fast-detr_r50_8xb2-12e_coco.py'

max_epochs = 24
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[20], gamma=0.1)]
derived_keys = {'param_scheduler.0.milestones': '[{max_epochs*0.83}]'}
