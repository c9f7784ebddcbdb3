# The demo's small model with parts that make it learn faster (docs/fast_learning.md), on your
# dataset in COCO format: learns from random weights, also on a CPU.
# Copy this file in its folder and set the variables, set them in a config with this one as _base_,
# or give them by --cfg-options.
data_root = 'data/my_dataset'
train_ann = 'train.json'  # below data_root, like the next three
train_images = 'images/'
val_ann = 'val.json'
val_images = 'images/'
classes = ('class_a', 'class_b')  # names in the annotation files
# (width, height) in pixels; images are stretched. A square suits both orientations.
image_scale = (320, 320)
max_epochs = 40

_base_ = '../demo/fast-detr_r18_shapes.py'

model = dict(
    backbone=dict(out_indices=(1, 2, 3)),
    neck=dict(in_channels=[64, 128, 256], num_outs=3),
    transformer=dict(
        # proposals from a dense head; distinct ones become queries
        queries=dict(
            box_size=0.1,
            num_convs=1,
            box_form='distance',
            distinct=0.6,
            residual_classes=True),
        decoder=dict(cross_attn=dict(num_levels=3))),
    bbox_head=dict(
        num_classes=len(classes),
        loss_cls=dict(type='MALLoss'),
        # one-to-many, with the box's quality as target
        proposal_loss=dict(
            type='DenseProposalLoss', assigner=dict(type='TaskAlignedAssigner', topk=13))))

train_dataset = dict(
    data_root=data_root,
    metainfo=dict(classes=classes),
    ann_file=train_ann,
    data_prefix=dict(img=train_images),
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=image_scale, keep_ratio=False),
        # a few hundred images are soon memorised: vary scale, place and colour
        dict(
            type='RandomAffine',
            max_rotate_degree=0.0,
            max_translate_ratio=0.1,
            scaling_ratio_range=(0.6, 1.5),
            max_shear_degree=0.0,
            border_val=(114, 114, 114)),
        dict(type='YOLOXHSVRandomAug'),
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
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            # the proposals' last layers, after those of decoder layers 0 and 1: linear, where a
            # dense head has 3x3 convolutions, which move up to nine times as far at one rate
            'bbox_head.cls_branches.2': dict(lr_mult=8.0),
            'bbox_head.reg_branches.2.4': dict(lr_mult=3.0),
        }))
param_scheduler = [
    dict(type='HorizonWarmUpLR', by_epoch=False),
    dict(
        type='CosineAnnealingLR', eta_min_ratio=0.001, by_epoch=True, convert_to_iter_based=True),
]
default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=3, save_best='auto'),
    # validation and checkpoints use weights averaged over the last twentieth of all steps
    ema=dict(type='HorizonEMAHook'))

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
