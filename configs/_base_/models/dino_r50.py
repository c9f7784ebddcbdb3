# DINO (arXiv 2203.03605): learned contents at selected proposals, contrastive denoising, look
# forward twice.
_base_ = './deformable-detr_r50.py'

# no dropout, wider feed-forward blocks
layer = dict(feedforward_channels=2048, dropout=0.0)
model = dict(
    num_queries=900,
    positional_encoding=dict(offset=0.0, temperature=20),
    transformer=dict(
        encoder=layer,
        queries=dict(
            _delete_=True,
            type='DenoisingQueries',
            queries=dict(
                type='TwoStageQueries', class_aware=True, content='learned', supervise='selected'),
            num_dn_queries=100),
        decoder=dict(
            **layer,
            post_norm=True,
            refine=True,
            refine_normed=False,
            look_forward_twice=True,
            reference_eps=1e-3,
            reference_pos='canvas',
            # as in mmdet 3.3 and the published weights; later versions have 256
            reference_feats=128)),
    bbox_head=dict(share_pred_layer=False, box_size_bias=0.0, loss_cls=dict(loss_weight=1.0)),
    test_cfg=dict(max_per_img=300))
