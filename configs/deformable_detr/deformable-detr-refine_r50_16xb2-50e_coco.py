_base_ = './deformable-detr_r50_16xb2-50e_coco.py'

# Each layer moves the boxes for the next one, and has branches of its own.
model = dict(
    transformer=dict(decoder=dict(refine=True)),
    bbox_head=dict(share_pred_layer=False))
