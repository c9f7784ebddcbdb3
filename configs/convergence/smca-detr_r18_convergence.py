_base_ = '../_base_/convergence.py'

# SMCA (arXiv 2101.07448)
model = dict(
    transformer=dict(
        queries=dict(content='zero', reference='none'),
        decoder=dict(
            self_attn=dict(type='MultiheadSelfAttention'),
            spatial_prior=dict(
                type='GaussianPrior',
                scale_type='independent',
                predict_reference=True,
                strides=(16, ),
                cell_offset=0.0),
            cross_attn=dict(type='SMCAAttention'))),
    bbox_head=dict(zero_init_box=False))
