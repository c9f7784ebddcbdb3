_base_ = '../smca_detr/smca-detr-ms_r50_8xb1-50e_coco.py'

# Deformable attention instead of dense attention within and over the scales; the decoder's
# queries weight the scales as before.
model = dict(
    transformer=dict(
        encoder=dict(
            _delete_=True, type='DeformableDetrEncoder', num_levels=3, num_heads=8, num_points=4)))
