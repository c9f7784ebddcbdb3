_base_ = '../sam_detr/sam-detr-ms_r50_8xb2-50e_coco.py'

# ConvNeXt-T with ImageNet weights, as in mmdet's configs/convnext. It comes from mmpretrain.
custom_imports = dict(imports=['fastdetr_mmdet', 'mmpretrain.models'])
model = dict(
    backbone=dict(
        _delete_=True, type='mmpretrain.ConvNeXt', arch='tiny', out_indices=(1, 2, 3),
        drop_path_rate=0.4, layer_scale_init_value=1.0, gap_before_final_norm=False, init_cfg=dict(
            type='Pretrained', prefix='backbone.',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/convnext/downstream/convnext-tiny_3rdparty_32xb128-noema_in1k_20220301-795e9634.pth')),
    neck=dict(in_channels=[192, 384, 768]))
