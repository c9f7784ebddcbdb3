# COCO with DETR's augmentation: one of 11 sizes, or a crop between two resizes. For your data, set
# data_root and the variables below it; custom_detection.py has all of them.
dataset_type = 'CocoDataset'
data_root = 'data/coco/'
train_ann = 'annotations/instances_train2017.json'  # below data_root, like the next three
train_images = 'train2017/'
val_ann = 'annotations/instances_val2017.json'
val_images = 'val2017/'
classes = (
    'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train', 'truck', 'boat',
    'traffic light', 'fire hydrant', 'stop sign', 'parking meter', 'bench', 'bird', 'cat', 'dog',
    'horse', 'sheep', 'cow', 'elephant', 'bear', 'zebra', 'giraffe', 'backpack', 'umbrella',
    'handbag', 'tie', 'suitcase', 'frisbee', 'skis', 'snowboard', 'sports ball', 'kite',
    'baseball bat', 'baseball glove', 'skateboard', 'surfboard', 'tennis racket', 'bottle',
    'wine glass', 'cup', 'fork', 'knife', 'spoon', 'bowl', 'banana', 'apple', 'sandwich',
    'orange', 'broccoli', 'carrot', 'hot dog', 'pizza', 'donut', 'cake', 'chair', 'couch',
    'potted plant', 'bed', 'dining table', 'toilet', 'tv', 'laptop', 'mouse', 'remote',
    'keyboard', 'cell phone', 'microwave', 'oven', 'toaster', 'sink', 'refrigerator', 'book',
    'clock', 'vase', 'scissors', 'teddy bear', 'hair drier', 'toothbrush')
image_scale = (1333, 800)  # maximum longest and shortest side, in pixels

scales = [(480, 1333), (512, 1333), (544, 1333), (576, 1333), (608, 1333), (640, 1333),
          (672, 1333), (704, 1333), (736, 1333), (768, 1333), (800, 1333)]

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomChoice',
        transforms=[
            [dict(type='RandomChoiceResize', scales=scales, keep_ratio=True)],
            [
                dict(
                    type='RandomChoiceResize',
                    scales=[(400, 4200), (500, 4200), (600, 4200)],
                    keep_ratio=True),
                dict(
                    type='RandomCrop',
                    crop_type='absolute_range',
                    crop_size=(384, 600),
                    allow_negative_crop=True),
                dict(type='RandomChoiceResize', scales=scales, keep_ratio=True),
            ],
        ]),
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
        type=dataset_type,
        data_root=data_root,
        metainfo=dict(classes=classes),
        ann_file=train_ann,
        data_prefix=dict(img=train_images),
        # train on images without objects, too
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=train_pipeline,
        backend_args=None))
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=dict(classes=classes),
        ann_file=val_ann,
        data_prefix=dict(img=val_images),
        test_mode=True,
        pipeline=test_pipeline,
        backend_args=None))
test_dataloader = val_dataloader

val_evaluator = dict(
    type='CocoMetric',
    ann_file=data_root + val_ann,
    metric='bbox',
    format_only=False,
    backend_args=None)
test_evaluator = val_evaluator

# Values derived from the variables above; they follow if --cfg-options or an inheriting config
# changes a variable (fastdetr_mmdet/utils/derived_keys.py).
derived_from = dict(
    data_root=data_root, train_ann=train_ann, train_images=train_images, val_ann=val_ann,
    val_images=val_images, classes=classes, image_scale=image_scale)
derived_keys = {
    'train_cfg.max_epochs': '{max_epochs}',
    'param_scheduler.0.milestones': '[{max_epochs*0.8}]',
    'model.bbox_head.num_classes': '{#classes}',
    'train_dataloader.dataset.data_root': '{data_root}',
    'train_dataloader.dataset.ann_file': '{train_ann}',
    'train_dataloader.dataset.data_prefix.img': '{train_images}',
    'train_dataloader.dataset.metainfo.classes': '{classes}',
    'train_dataloader.dataset.pipeline.3.transforms.0.0.scales': '{~image_scale}',
    'train_dataloader.dataset.pipeline.3.transforms.1.2.scales': '{~image_scale}',
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
