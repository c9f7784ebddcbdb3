# Conditional DETR (arXiv 2108.06152): a spatial query from each layer's content, concatenated.
_base_ = './detr_r50.py'

model = dict(
    transformer=dict(
        queries=dict(type='LearnedQueries', content='zero', reference='mlp'),
        decoder=dict(
            type='ConditionalDecoder',
            self_attn=dict(type='ConditionalSelfAttention'),
            cross_attn=dict(type='ConditionalAttention'))))
