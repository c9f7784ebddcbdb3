# Your dataset in COCO format: use this file instead of coco_detection.py in the _base_ of a COCO
# config. `python -m fastdetr_mmdet init DATA` sets these variables for you.
_base_ = './coco_detection.py'

data_root = 'data/my_dataset'
train_ann = 'train.json'  # below data_root, like the next three
train_images = 'images/'
val_ann = 'val.json'
val_images = 'images/'
classes = ('class_a', 'class_b')  # names in the annotation files
