# The small model with parts that make it learn faster (docs/fast_learning.md): make demo
_base_ = './fast-detr_r18_shapes.py'

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
        loss_cls=dict(type='MALLoss', separate_classes=True),
        # one-to-many, with the box's quality as target; chosen by place, because random weights
        # have no good scores and boxes to choose by
        proposal_loss=dict(
            type='DenseProposalLoss', assigner=dict(type='ATSSAssigner', topk=9),
            anchor_scale=4.0)))

max_epochs = 14
train_cfg = dict(max_epochs=max_epochs)
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
# validation and checkpoints use weights averaged over the last twentieth of all steps
default_hooks = dict(ema=dict(type='HorizonEMAHook'))

derived_from = dict(max_epochs=max_epochs)
