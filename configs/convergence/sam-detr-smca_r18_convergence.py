_base_ = './sam-detr_r18_convergence.py'

# SAM-DETR with a Gaussian prior at the salient points.
model = dict(
    transformer=dict(decoder=dict(spatial_prior=dict(type='SalientGaussianPrior'))))
