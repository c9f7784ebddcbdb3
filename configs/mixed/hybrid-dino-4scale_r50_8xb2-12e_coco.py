_base_ = '../dino/dino-4scale_r50_8xb2-12e_coco.py'

# RT-DETR's encoder, as wide as in its smaller models, instead of six deformable layers.
model = dict(
    transformer=dict(
        encoder=dict(_delete_=True, type='HybridEncoder', num_levels=4, expansion=0.5)))
