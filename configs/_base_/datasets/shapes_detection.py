# The embedded dataset: python -m fastdetr_mmdet shapes data/shapes
data_root = 'data/shapes/'
train_ann = 'annotations/train.json'
train_images = 'train/'
val_ann = 'annotations/val.json'
val_images = 'val/'
classes = ('disc', 'square', 'triangle', 'star', 'cross', 'ring')
image_scale = (160, 160)  # (width, height) in pixels; images are stretched

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=image_scale, keep_ratio=False),
    dict(
        type='RandomFlip',
        prob=[0.25, 0.25, 0.25],
        direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=image_scale, keep_ratio=False),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=8,
    # no workers, which would compete with training on two cores
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        metainfo=dict(classes=classes),
        ann_file=train_ann,
        data_prefix=dict(img=train_images),
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=train_pipeline,
        backend_args=None))
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        metainfo=dict(classes=classes),
        ann_file=val_ann,
        data_prefix=dict(img=val_images),
        test_mode=True,
        pipeline=test_pipeline,
        backend_args=None))
test_dataloader = val_dataloader

val_evaluator = dict(
    type='CocoMetric', ann_file=data_root + val_ann, metric='bbox')
test_evaluator = val_evaluator

# Values derived from the variables above; they follow if --cfg-options or an inheriting config
# changes a variable (fastdetr_mmdet/utils/derived_keys.py).
derived_from = dict(
    data_root=data_root, train_ann=train_ann, train_images=train_images, val_ann=val_ann,
    val_images=val_images, classes=classes, image_scale=image_scale)
derived_keys = {
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
