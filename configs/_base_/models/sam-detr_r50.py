# SAM-DETR (arXiv 2203.06883): an aligner re-samples queries from the image; boxes are refined.
_base_ = './detr_r50.py'

model = dict(
    # equal to the official encoding also on padding, which the aligner may read
    positional_encoding=dict(_delete_=True, type='SAMSinePositionalEncoding'),
    transformer=dict(
        queries=dict(type='LearnedBoxQueries'),
        decoder=dict(
            type='DetrDecoder',
            refine=True,
            post_norm=False,
            self_attn=dict(type='ConditionalSelfAttention'),
            aligner=dict(type='SAMSemanticAligner'),
            cross_attn=dict(type='SAMAttention'))),
    bbox_head=dict(share_pred_layer=False))
