_base_ = '../dino/dino-4scale_r50_improved_8xb2-12e_coco.py'

# DINO with what learned faster on small sets (docs/fast_learning.md): proposals are a dense head
# that learns one-to-many with the box's quality as target, distinct ones become queries, a third
# as many, and classes are refined as boxes are.
model = dict(
    num_queries=300,
    transformer=dict(
        queries=dict(
            queries=dict(
                supervise='all',
                num_convs=2,
                box_form='distance',
                distinct=0.6,
                residual_classes=True)),
        decoder=dict(reference_pos='image')),
    bbox_head=dict(
        loss_cls=dict(_delete_=True, type='MALLoss'),
        proposal_loss=dict(
            type='DenseProposalLoss', assigner=dict(type='TaskAlignedAssigner', topk=13))),
    # images of different sizes one by one, so that no result depends on the batch
    test_cfg=dict(max_per_img=100, separate_sizes=True))

default_hooks = dict(ema=dict(type='HorizonEMAHook', share=0.02))
