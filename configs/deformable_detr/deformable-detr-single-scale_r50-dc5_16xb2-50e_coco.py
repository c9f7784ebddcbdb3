_base_ = './deformable-detr-single-scale_r50_16xb2-50e_coco.py'

# Last stage dilated instead of strided: stride 16, four times the tokens.
model = dict(
    backbone=dict(type='DilatedResNet', strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)))
