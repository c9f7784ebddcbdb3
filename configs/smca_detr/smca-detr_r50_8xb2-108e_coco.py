_base_ = './smca-detr_r50_8xb2-50e_coco.py'

max_epochs = 108
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[80], gamma=0.1)]
derived_keys = {'param_scheduler.0.milestones': '[{max_epochs*0.74}]'}
