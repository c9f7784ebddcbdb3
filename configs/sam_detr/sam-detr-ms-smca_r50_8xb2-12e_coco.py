_base_ = './sam-detr-ms_r50_8xb2-12e_coco.py'

# A Gaussian prior at the salient points.
model = dict(
    transformer=dict(decoder=dict(spatial_prior=dict(type='SalientGaussianPrior'))))
