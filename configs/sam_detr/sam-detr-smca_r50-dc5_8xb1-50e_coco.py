_base_ = './sam-detr-smca_r50_4xb4-50e_coco.py'

# Last stage dilated instead of strided: stride 16, four times the tokens.
model = dict(
    backbone=dict(type='DilatedResNet', strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)))

# Trained with one image per GPU, so without padding; test it that way too.
train_dataloader = dict(batch_size=1)
auto_scale_lr = dict(base_batch_size=8)
