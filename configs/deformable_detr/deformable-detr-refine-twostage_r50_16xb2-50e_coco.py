_base_ = './deformable-detr-refine_r50_16xb2-50e_coco.py'

# The encoder proposes boxes; the best become queries.
model = dict(
    transformer=dict(queries=dict(_delete_=True, type='TwoStageQueries')),
    bbox_head=dict(box_size_bias=0.0))
