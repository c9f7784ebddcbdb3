# Deformable DETR (arXiv 2010.04159): a few sampling points on four levels, strides 8 to 64.
_base_ = './detr_r50.py'

num_levels = 4
model = dict(
    backbone=dict(out_indices=(1, 2, 3)),
    neck=dict(
        in_channels=[512, 1024, 2048],
        norm_cfg=dict(type='GN', num_groups=32),
        # the official weights have a bias before the norm, unlike mmcv's default
        bias=True,
        num_outs=num_levels,
        init_cfg=dict(_delete_=True, type='Xavier', layer='Conv2d', distribution='uniform')),
    # positions of cell centres
    positional_encoding=dict(offset=-0.5),
    transformer=dict(
        type='DeformableDetrTransformer',
        num_levels=num_levels,
        encoder=dict(
            type='DeformableDetrEncoder',
            num_levels=num_levels,
            num_points=4,
            feedforward_channels=1024),
        queries=dict(type='LearnedQueries', content='learned', reference='linear'),
        decoder=dict(
            type='DetrDecoder',
            feedforward_channels=1024,
            post_norm=False,
            self_attn=dict(type='MultiheadSelfAttention'),
            cross_attn=dict(
                type='DeformableAttention', num_levels=num_levels, num_points=4))),
    # boxes at reference points start with an eighth of the image's size
    bbox_head=dict(box_size_bias=-2.0))
