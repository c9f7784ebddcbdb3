_base_ = './deformable-detr_r50_16xb2-50e_coco.py'

# Each layer refines the boxes for the next one, with its own branches.
model = dict(
    transformer=dict(decoder=dict(refine=True)),
    bbox_head=dict(share_pred_layer=False))
