_base_ = '../dino/dino-4scale_r50_8xb2-12e_coco.py'

# Relation-DETR's bias between the boxes of two layers; Stable-DINO's fusion of encoder layers.
model = dict(
    transformer=dict(
        encoder=dict(memory_fusion=True),
        decoder=dict(self_attn=dict(type='RelationSelfAttention'))))
