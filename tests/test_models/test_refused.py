"""Arguments that parts refuse when they are built.

Elsewhere: parts that do not fit together (test_contracts.py), and num_heads (test_every_part.py).
"""

import pytest
from mmdet.registry import MODELS
from support.models import EMBED_DIMS, NUM_CLASSES


def part(type, **options):
    return dict(type=type, embed_dims=EMBED_DIMS, **options)


BOXES = dict(type="LearnedBoxQueries")
GROUPS, HYBRID = dict(type="GroupQueries", queries=BOXES), dict(type="HybridQueries", queries=BOXES)
DENOISING = dict(type="DenoisingQueries", queries=BOXES, num_classes=NUM_CLASSES)

# Config, then values, keys and fixes that the error names.
REFUSED = [
    (part("LearnedQueries", num_queries=0), "num_queries=0"),
    (part("LearnedQueries", content="one"), "content='one'"),
    (part("LearnedQueries", reference="box"), "reference='box'"),
    (part("TwoStageQueries", content="zero"), "content='zero'"),
    (part("TwoStageQueries", supervise="best"), "supervise='best'"),
    (part("TwoStageQueries", box_size=1.0), "box_size=1.0"),
    (part("TwoStageQueries", box_form="corners"), "box_form='corners'"),
    (part(**DENOISING | dict(queries=dict(type="LearnedQueries", reference="mlp"))), "LearnedQ"),
    (part(**DENOISING, label_noise=2), "label_noise=2"),
    (part(**DENOISING, num_groups=0), "num_groups=0"),
    (part(**DENOISING | dict(queries=dict(BOXES, num_queries=4)), num_queries=5), "=5", "=4"),
    (part(**DENOISING | dict(queries=DENOISING)), "leave one DenoisingQueries out"),
    (part(**GROUPS, num_groups=0), "num_groups=0"),
    (part(**GROUPS | dict(queries=DENOISING)), "put DenoisingQueries around GroupQueries"),
    (part(**GROUPS | dict(queries=HYBRID)), "choose GroupQueries or HybridQueries"),
    (part(**HYBRID, repeats=0), "repeats=0"),
    (part(**HYBRID, weight=0), "weight=0"),
    (part("SMCAConvEncoder", kernel_size=4), "kernel_size=4"),
    (part("SMCAConvEncoder", num_levels=1, reduce_first=True), "num_levels=1"),
    (part("SMCAEncoder", pattern=[]), "pattern=[]"),
    (part("SMCAEncoder", pattern=["intra", "cross"]), "pattern=['intra', 'cross']"),
    (part("ConditionalDecoder", num_layers=0), "ConditionalDecoder", "num_layers=0"),
    (part("DetrDecoder", num_layers=3, level_schedule=(0, 1)), "level_schedule=[0, 1]", " 3 "),
    (part("DetrDecoder", look_forward_twice=True), "look_forward_twice=True", "refine=True"),
    (part("DetrDecoder", reference_feats=8), "reference_feats=8", "reference_pos"),
    (part("GaussianPrior", scale_type="type3"), "scale_type='type3'", "independent"),
    (part("GaussianPrior", num_levels=3, strides=(8, 16)), "strides=[8, 16]", "num_levels=3"),
    (part("GaussianPrior", unit=32), "unit=32", "strides"),
    (dict(type="MALLoss", gamma=-1), "gamma=-1"),
    (dict(type="IABCELoss", alpha=2), "alpha=2"),
    (dict(type="PositionSupervisedLoss", gamma=-1), "gamma=-1"),
    (
        dict(type="DenseProposalLoss", assigner=dict(type="HungarianMatcher")),
        *("proposal_loss.assigner", "HungarianMatcher", "DynamicSoftLabelAssigner"),
    ),
    (dict(type="DenseProposalLoss", loss_cls=dict(type="L1Loss")), "loss_cls", "L1Loss"),
    (dict(type="EfficientNetLite", arch="b0"), "arch='b0'"),
    (dict(type="EfficientNetLite", out_indices=(6,)), "out_indices=(6,)"),
]


@pytest.mark.parametrize(
    ("config", "named"),
    [pytest.param(config, named, id=f"{config['type']}, {named[0]}") for config, *named in REFUSED],
)
def test_refuses(config, named):
    with pytest.raises(ValueError) as error:
        MODELS.build(config)
    assert [name for name in named if name not in str(error.value)] == []


def test_mmdets_denoising_options_are_named():
    given = dict(label_noise_scale=0.5, group_cfg=dict(num_dn_queries=100))
    with pytest.raises(TypeError, match=r"label_noise_scale, group_cfg.*label_noise to half"):
        MODELS.build(part(**DENOISING, **given))


def test_hybrid_beside_denoising_warns():
    with pytest.warns(UserWarning, match="48.7 to 46.5"):
        MODELS.build(part(**DENOISING | dict(queries=HYBRID)))
