# A data set of your own in COCO's format, in place of coco_detection.py in the _base_ of any of our
# COCO configs. `python -m fastdetr_mmdet init DATA` writes these variables for you.
_base_ = './coco_detection.py'

data_root = 'data/my_dataset'
train_ann = 'train.json'  # below data_root, as are the next three
train_images = 'images/'
val_ann = 'val.json'
val_images = 'images/'
classes = ('class_a', 'class_b')  # as the annotation files name them
