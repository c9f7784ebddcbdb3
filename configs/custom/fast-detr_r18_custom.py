# The demo's detector on your dataset in COCO format: learns from random weights, also on a CPU.
# Copy this file within its folder and set the variables, or set them in a config with this one as
# _base_, or with --cfg-options.
data_root = 'data/my_dataset'
train_ann = 'train.json'  # below data_root, like the next three
train_images = 'images/'
val_ann = 'val.json'
val_images = 'images/'
classes = ('class_a', 'class_b')  # names in the annotation files
# (width, height) in pixels; images are stretched. A square suits both orientations.
image_scale = (320, 320)
max_epochs = 40

_base_ = '../demo/fast-detr-dense_r18_shapes.py'

model = dict(bbox_head=dict(num_classes=len(classes)))

train_dataset = dict(
    data_root=data_root,
    metainfo=dict(classes=classes),
    ann_file=train_ann,
    data_prefix=dict(img=train_images),
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=image_scale, keep_ratio=False),
        # a few hundred images are soon memorised: vary scale, place and colour of every second one
        dict(
            type='RandomApply',
            prob=0.5,
            transforms=[
                dict(
                    type='RandomAffine',
                    max_rotate_degree=0.0,
                    max_translate_ratio=0.1,
                    scaling_ratio_range=(0.6, 1.5),
                    max_shear_degree=0.0,
                    border_val=(114, 114, 114)),
                dict(type='YOLOXHSVRandomAug'),
            ]),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackDetInputs'),
    ])
val_dataset = dict(
    data_root=data_root,
    metainfo=dict(classes=classes),
    ann_file=val_ann,
    data_prefix=dict(img=val_images),
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=image_scale, keep_ratio=False),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(
            type='PackDetInputs',
            meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
    ])
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=3, save_best='auto'))

train_dataloader = dict(dataset=train_dataset)
val_dataloader = dict(dataset=val_dataset)
test_dataloader = dict(dataset=val_dataset)
val_evaluator = dict(ann_file=data_root + '/' + val_ann)
test_evaluator = dict(ann_file=data_root + '/' + val_ann)

# derived_keys comes from the base
derived_from = dict(
    data_root=data_root, train_ann=train_ann, train_images=train_images, val_ann=val_ann,
    val_images=val_images, classes=classes, image_scale=image_scale,
    max_epochs=max_epochs)
