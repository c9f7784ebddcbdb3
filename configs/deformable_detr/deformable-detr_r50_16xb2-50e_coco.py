_base_ = [
    '../_base_/models/deformable-detr_r50.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_50e.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(
    optimizer=dict(lr=2e-4),
    paramwise_cfg=dict(
        custom_keys={
            'backbone': dict(lr_mult=0.1),
            'sampling_offsets': dict(lr_mult=0.1),
            'queries.reference': dict(lr_mult=0.1),
        }))
auto_scale_lr = dict(base_batch_size=32)
