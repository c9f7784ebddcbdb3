# Conditional DETR on a data set of your own in COCO format. Copy this file beside it and set these,
# or leave it and give any of them by --cfg-options (classes=cat,dog image_scale=640,480).
data_root = 'data/my_dataset'
train_ann = 'train.json'  # below data_root, as are the next three
train_images = 'images/'
val_ann = 'val.json'
val_images = 'images/'
classes = ('class_a', 'class_b')  # as the annotation files name them
image_scale = (1333, 800)  # longest and shortest side at most, in pixels

_base_ = [
    '../_base_/models/conditional-detr_r50.py',
    '../_base_/schedules/schedule_50e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    bbox_head=dict(num_classes=len(classes)),
    # validated, and deployed, without padding at any batch size; see docs/inference.md
    test_cfg=dict(separate_sizes=True))

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        metainfo=dict(classes=classes),
        ann_file=train_ann,
        data_prefix=dict(img=train_images),
        # images without objects are background to learn from
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        metainfo=dict(classes=classes),
        ann_file=val_ann,
        data_prefix=dict(img=val_images),
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file=data_root + '/' + val_ann, metric='bbox')
test_evaluator = val_evaluator

# What follows from these variables if --cfg-options or a config that inherits this one sets them
# (fastdetr_mmdet/utils/derived_keys.py)
derived_from = dict(
    data_root=data_root, train_ann=train_ann, train_images=train_images, val_ann=val_ann,
    val_images=val_images, classes=classes, image_scale=image_scale,
    max_epochs={{_base_.max_epochs}})
derived_keys = {
    'train_cfg.max_epochs': '{max_epochs}',
    'param_scheduler.0.milestones': '[{max_epochs*0.8}]',
    'model.bbox_head.num_classes': '{#classes}',
    'train_dataloader.dataset.data_root': '{data_root}',
    'train_dataloader.dataset.ann_file': '{train_ann}',
    'train_dataloader.dataset.data_prefix.img': '{train_images}',
    'train_dataloader.dataset.metainfo.classes': '{classes}',
    'train_dataloader.dataset.pipeline.2.scale': '{image_scale}',
    'val_dataloader.dataset.data_root': '{data_root}',
    'val_dataloader.dataset.ann_file': '{val_ann}',
    'val_dataloader.dataset.data_prefix.img': '{val_images}',
    'val_dataloader.dataset.metainfo.classes': '{classes}',
    'val_dataloader.dataset.pipeline.1.scale': '{image_scale}',
    'test_dataloader.dataset.data_root': '{data_root}',
    'test_dataloader.dataset.ann_file': '{val_ann}',
    'test_dataloader.dataset.data_prefix.img': '{val_images}',
    'test_dataloader.dataset.metainfo.classes': '{classes}',
    'test_dataloader.dataset.pipeline.1.scale': '{image_scale}',
    'val_evaluator.ann_file': '{data_root}/{val_ann}',
    'test_evaluator.ann_file': '{data_root}/{val_ann}',
}
