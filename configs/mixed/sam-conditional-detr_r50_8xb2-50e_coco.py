_base_ = '../conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'

# The query of each head is the feature at its salient point in the query's box; layers refine the
# boxes.
model = dict(
    transformer=dict(
        queries=dict(_delete_=True, type='LearnedBoxQueries'),
        decoder=dict(refine=True, aligner=dict(type='SAMSemanticAligner'))),
    bbox_head=dict(share_pred_layer=False))
