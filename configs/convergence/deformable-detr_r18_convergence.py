_base_ = '../_base_/convergence.py'

# Deformable DETR (arXiv 2010.04159) on one level, like all models here.
model = dict(
    # positions of cell centres
    positional_encoding=dict(offset=-0.5),
    transformer=dict(
        type='DeformableDetrTransformer',
        num_levels=1,
        encoder=dict(type='DeformableDetrEncoder', num_levels=1, num_points=4),
        queries=dict(content='learned', reference='linear'),
        decoder=dict(
            post_norm=False,
            self_attn=dict(type='MultiheadSelfAttention'),
            cross_attn=dict(type='DeformableAttention', num_levels=1, num_points=4))),
    # boxes at reference points start with an eighth of the image's size
    bbox_head=dict(box_size_bias=-2.0))

optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'sampling_offsets': dict(lr_mult=0.1),
            'queries.reference': dict(lr_mult=0.1),
        }))
