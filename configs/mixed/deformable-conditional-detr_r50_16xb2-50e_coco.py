_base_ = '../deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'

# Conditional decoder after the deformable encoder; queries attend to all tokens of four levels.
model = dict(
    transformer=dict(
        decoder=dict(
            type='ConditionalDecoder',
            post_norm=True,
            self_attn=dict(type='ConditionalSelfAttention'),
            cross_attn=dict(_delete_=True, type='ConditionalAttention'))))
