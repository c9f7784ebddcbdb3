_base_ = [
    '../_base_/models/sam-detr_r50.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_50e.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(batch_size=4)
