_base_ = '../_base_/convergence.py'

# SAM-DETR (arXiv 2203.06883)
model = dict(
    positional_encoding=dict(_delete_=True, type='SAMSinePositionalEncoding'),
    transformer=dict(
        queries=dict(_delete_=True, type='LearnedBoxQueries'),
        decoder=dict(
            refine=True,
            post_norm=False,
            self_attn=dict(type='ConditionalSelfAttention'),
            aligner=dict(type='SAMSemanticAligner'),
            cross_attn=dict(type='SAMAttention'))),
    bbox_head=dict(share_pred_layer=False))
