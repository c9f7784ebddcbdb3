# SMCA (arXiv 2101.07448): a Gaussian prior at reference points that the first layer predicts.
_base_ = './detr_r50.py'

model = dict(
    transformer=dict(
        # the first layer's prior predicts the reference points
        queries=dict(type='LearnedQueries', content='zero', reference='none'),
        decoder=dict(
            type='DetrDecoder',
            self_attn=dict(type='MultiheadSelfAttention'),
            spatial_prior=dict(
                type='GaussianPrior',
                # or 'fixed', 'single', 'correlated': --dynamic_scale type1, type2, type4
                scale_type='independent',
                predict_reference=True,
                strides=(32, ),
                cell_offset=0.0),
            cross_attn=dict(type='SMCAAttention'))),
    bbox_head=dict(zero_init_box=False),
    test_cfg=dict(max_per_img=300))
