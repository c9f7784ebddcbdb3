# Conditional DETR on a data set of your own in COCO format. Copy this file beside it and set these,
# or leave it and give any of them by --cfg-options (classes=cat,dog image_scale=640,480). For
# another method take the line of its model from its config.
data_root = 'data/my_dataset'
train_ann = 'train.json'  # below data_root, as are the next three
train_images = 'images/'
val_ann = 'val.json'
val_images = 'images/'
classes = ('class_a', 'class_b')  # as the annotation files name them
image_scale = (1333, 800)  # longest and shortest side at most, in pixels

_base_ = [
    '../_base_/models/conditional-detr_r50.py',
    '../_base_/datasets/custom_detection.py',
    '../_base_/schedules/schedule_50e.py',
    '../_base_/default_runtime.py',
]

# validated, and deployed, without padding at any batch size; see docs/inference.md
model = dict(test_cfg=dict(separate_sizes=True))
