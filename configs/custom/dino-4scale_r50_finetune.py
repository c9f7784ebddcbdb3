# DINO, fine-tuned from COCO on a few hundred images of your own in COCO format. Convert mmdet's
# published file once (docs/checkpoints.md); then copy this file beside it and set these, or give
# any of them by --cfg-options (load_from=dino.pth classes=cat,dog max_epochs=20).
load_from = 'dino-4scale_r50.pth'
data_root = 'data/my_dataset'
train_ann = 'train.json'  # below data_root, as are the next three
train_images = 'images/'
val_ann = 'val.json'
val_images = 'images/'
classes = ('class_a', 'class_b')  # as the annotation files name them
image_scale = (1333, 800)  # longest and shortest side at most, in pixels
max_epochs = 30  # the learning rate is divided by 10 after 24

_base_ = [
    '../_base_/models/dino_r50.py',
    '../_base_/datasets/custom_detection.py',
    '../_base_/schedules/schedule_50e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(init_cfg=None),  # load_from has it
    num_queries=300,  # of 900: trains faster; the decoder's first contents are the best proposals'
    test_cfg=dict(separate_sizes=True))  # without padding, as it is deployed; docs/inference.md
train_cfg = dict(max_epochs=max_epochs)
# No warm-up, which would take most of so few steps, and a backbone that learns half as fast as the
# rest instead of a tenth: D-FINE's settings for own data. 1e-4 is RF-DETR's rate, of 16 images;
# with 2 on one GPU take 4e-5.
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[24], gamma=0.1)]
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.5)}))
