# Base of the recipe and its peers: the template's data, backbone, neck, augmentation and schedule,
# sized for a short comparison on a CPU. The peers replace the rest of the model.
_base_ = '../custom/fast-detr_lite0_custom.py'

data_root = 'data/bccd'
classes = ('Platelets', 'RBC', 'WBC')
image_scale = (256, 192)
max_epochs = 12
embed_dims = 128

model = dict(bbox_head=dict(num_classes=len(classes)))
train_cfg = dict(max_epochs=max_epochs, val_interval=1)
# no workers, so that the process's CPU time is complete
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
