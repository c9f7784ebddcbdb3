_base_ = '../conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'

# A Gaussian around the reference point is added to the content and the spatial score.
model = dict(transformer=dict(decoder=dict(spatial_prior=dict(type='GaussianPrior'))))
