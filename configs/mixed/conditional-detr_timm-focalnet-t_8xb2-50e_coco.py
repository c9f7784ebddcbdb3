_base_ = '../conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'

# A timm feature extractor with ImageNet weights, through mmpretrain's wrapper; with LayerNorm,
# since batch norms would train on two images.
custom_imports = dict(imports=['fastdetr_mmdet', 'mmpretrain.models'])
model = dict(
    backbone=dict(
        _delete_=True, type='mmpretrain.TIMMBackbone', model_name='focalnet_tiny_srf',
        features_only=True, pretrained=True, out_indices=(3, )),
    neck=dict(in_channels=[768]))
