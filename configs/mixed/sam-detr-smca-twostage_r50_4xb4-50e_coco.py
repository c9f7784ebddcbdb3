_base_ = '../sam_detr/sam-detr-smca_r50_4xb4-50e_coco.py'

# The encoder proposes the boxes for salient points and Gaussians.
model = dict(transformer=dict(queries=dict(_delete_=True, type='TwoStageQueries')))
