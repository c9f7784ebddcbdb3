_base_ = './sam-detr_r50_4xb4-12e_coco.py'

# A Gaussian prior at the salient points.
model = dict(
    transformer=dict(decoder=dict(spatial_prior=dict(type='SalientGaussianPrior'))))
