# Fine-tune DINO from COCO on a few hundred images in COCO format. Convert mmdet's published file
# once (docs/checkpoints.md). Then copy this file within its folder and set the variables, or set
# them with --cfg-options (load_from=dino.pth classes=cat,dog max_epochs=20).
load_from = 'dino-4scale_r50.pth'
data_root = 'data/my_dataset'
train_ann = 'train.json'  # below data_root, like the next three
train_images = 'images/'
val_ann = 'val.json'
val_images = 'images/'
classes = ('class_a', 'class_b')  # names in the annotation files
image_scale = (1333, 800)  # maximum longest and shortest side, in pixels
max_epochs = 30  # the learning rate is divided by 10 after 24

_base_ = [
    '../_base_/models/dino_r50.py',
    '../_base_/datasets/custom_detection.py',
    '../_base_/schedules/schedule_50e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(init_cfg=None),  # load_from has its weights
    num_queries=300,  # instead of 900, to train faster; keeps the contents of the best
    test_cfg=dict(separate_sizes=True))  # no padding, as in deployment (docs/inference.md)
train_cfg = dict(max_epochs=max_epochs)
# D-FINE's settings for own data: no warm-up, because it would last for most of the steps, and half
# of the learning rate for the backbone instead of a tenth. 1e-4 is RF-DETR's rate for 16 images per
# step; use 4e-5 for 2.
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[24], gamma=0.1)]
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.5)}))
