_base_ = './fast-detr_r50_8xb2-12e_coco.py'

# For small machines: ResNet-18, three encoder and three decoder layers, feed-forward blocks half as
# wide.
model = dict(
    backbone=dict(
        depth=18, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=[128, 256, 512]),
    transformer=dict(
        encoder=dict(num_layers=3, feedforward_channels=1024),
        decoder=dict(num_layers=3, feedforward_channels=1024)))
train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(base_batch_size=32)
