# Conditional DETR on your dataset in COCO format. Copy this file within its folder and set the
# variables, or set them with --cfg-options (classes=cat,dog image_scale=640,480). For another
# method, replace the model file in _base_ by that of its config.
data_root = 'data/my_dataset'
train_ann = 'train.json'  # below data_root, like the next three
train_images = 'images/'
val_ann = 'val.json'
val_images = 'images/'
classes = ('class_a', 'class_b')  # names in the annotation files
image_scale = (1333, 800)  # maximum longest and shortest side, in pixels

_base_ = [
    '../_base_/models/conditional-detr_r50.py',
    '../_base_/datasets/custom_detection.py',
    '../_base_/schedules/schedule_50e.py',
    '../_base_/default_runtime.py',
]

# no padding in validation and deployment, at any batch size (docs/inference.md)
model = dict(test_cfg=dict(separate_sizes=True))
