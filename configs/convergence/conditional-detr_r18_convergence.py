_base_ = '../_base_/convergence.py'

# Conditional DETR (arXiv 2108.06152)
model = dict(
    transformer=dict(
        queries=dict(content='zero', reference='mlp'),
        decoder=dict(
            type='ConditionalDecoder',
            self_attn=dict(type='ConditionalSelfAttention'),
            cross_attn=dict(type='ConditionalAttention'))))
