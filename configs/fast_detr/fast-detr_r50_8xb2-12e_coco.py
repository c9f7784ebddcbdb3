_base_ = '../dino/dino-4scale_r50_improved_8xb2-12e_coco.py'

# DINO with the parts that learned faster on small datasets (docs/fast_learning.md): proposals from
# a dense head, trained one-to-many with class targets that depend on the box's IoU; a third as many
# queries, all distinct; class logits refined like boxes.
model = dict(
    num_queries=300,
    transformer=dict(
        queries=dict(
            queries=dict(
                supervise='all',
                num_convs=1,
                box_form='distance',
                distinct=0.6,
                residual_classes=True)),
        decoder=dict(reference_pos='image')),
    bbox_head=dict(
        loss_cls=dict(_delete_=True, type='MALLoss'),
        proposal_loss=dict(
            type='DenseProposalLoss', assigner=dict(type='TaskAlignedAssigner', topk=13))),
    # one batch per image size, so that results do not depend on the batch
    test_cfg=dict(max_per_img=100, separate_sizes=True))

default_hooks = dict(ema=dict(type='HorizonEMAHook', share=0.02))
