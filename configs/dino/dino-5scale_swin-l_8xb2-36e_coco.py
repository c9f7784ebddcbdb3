_base_ = './dino-5scale_swin-l_8xb2-12e_coco.py'

max_epochs = 36
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[27, 33], gamma=0.1)]
derived_keys = {'param_scheduler.0.milestones': '[{max_epochs*0.75}, {max_epochs*0.92}]'}
