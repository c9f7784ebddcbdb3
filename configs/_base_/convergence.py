# Base of the six models of configs/convergence/: equal features, width, layers, heads, feed-forward
# width, queries, images, augmentation and schedule. No pretrained weights.
data_root = 'data/bccd'
train_ann = 'train.json'  # below data_root, like the next three
train_images = 'images/'
val_ann = 'val.json'
val_images = 'images/'
classes = ('Platelets', 'RBC', 'WBC')  # names in the annotation files
image_scale = (240, 180)  # (width, height) in pixels; images are stretched
max_epochs = 30

embed_dims = 96
num_heads = 8
feedforward_channels = 384
dropout = 0.0

_base_ = ['./models/detr_r50.py', './default_runtime.py']
num_classes = len(classes)
model = dict(
    num_queries=50,
    # Three stages of a narrow ResNet-18: one map of stride 16, 15 x 12 cells for 240 x 180 pixels.
    # Stride 32 would give 48, fewer than the queries.
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=18,
        base_channels=16,
        stem_channels=16,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2, ),
        frozen_stages=-1,
        norm_cfg=dict(type='BN'),
        norm_eval=False,
        style='pytorch'),
    neck=dict(in_channels=[64], out_channels=embed_dims),
    transformer=dict(
        embed_dims=embed_dims,
        encoder=dict(
            num_layers=2,
            num_heads=num_heads,
            feedforward_channels=feedforward_channels,
            dropout=dropout),
        queries=dict(type='LearnedQueries'),
        decoder=dict(
            type='DetrDecoder',
            num_layers=2,
            num_heads=num_heads,
            feedforward_channels=feedforward_channels,
            dropout=dropout)),
    bbox_head=dict(num_classes=num_classes),
    test_cfg=dict(max_per_img=50))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=image_scale, keep_ratio=False),
    dict(
        type='RandomFlip',
        prob=[0.25, 0.25, 0.25],
        direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_scale, keep_ratio=False),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=2,
    # no workers, so that the process's CPU time is complete
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
        pipeline=train_pipeline))
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
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file=data_root + '/' + val_ann, metric='bbox')
test_evaluator = val_evaluator

# One learning rate, also for the backbone, which is not pretrained; layers that a method trains
# more slowly have a lower one. Constant after a warm-up, so that a curve does not depend on the
# number of epochs.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, by_epoch=False, begin=0, end=200),
]
auto_scale_lr = dict(enable=False, base_batch_size=2)

default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(max_keep_ckpts=1, save_best=None))
randomness = dict(seed=0)

# Values derived from the variables above; they follow if --cfg-options or an inheriting config
# changes a variable (fastdetr_mmdet/utils/derived_keys.py).
derived_from = dict(
    data_root=data_root, train_ann=train_ann, train_images=train_images, val_ann=val_ann,
    val_images=val_images, classes=classes, image_scale=image_scale,
    max_epochs=max_epochs)
derived_keys = {
    'train_cfg.max_epochs': '{max_epochs}',
    'num_classes': '{#classes}',
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
