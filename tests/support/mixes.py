"""Small models with every cross-attention, alone and mixed, for tests of the viewer."""

from __future__ import annotations

from torch import nn

from support.models import NUM_HEADS, THREE_LEVELS, tiny_model

LAYER = dict(num_layers=2, num_heads=NUM_HEADS, feedforward_channels=48, dropout=0.0)
BOXES = dict(_delete_=True, type="LearnedBoxQueries")
TWO_STAGE = dict(_delete_=True, type="TwoStageQueries")
PLAIN = dict(_delete_=True, type="DetrDecoder", **LAYER)
SAM = dict(type="SAMSemanticAligner")

# Name -> overrides for tiny_config
MIXES: dict[str, dict] = {
    "plain": dict(transformer__decoder=PLAIN),
    "conditional": {},
    "conditional with aligner and prior": dict(
        transformer__queries=BOXES,
        transformer__decoder__aligner=SAM,
        transformer__decoder__refine=True,
        transformer__decoder__spatial_prior=dict(type="GaussianPrior"),
    ),
    "smca": dict(
        transformer__decoder=dict(
            PLAIN,
            cross_attn=dict(type="SMCAAttention"),
            spatial_prior=dict(type="GaussianPrior"),
        )
    ),
    "smca on three levels": dict(
        **THREE_LEVELS,
        transformer__decoder=dict(
            PLAIN,
            cross_attn=dict(type="SMCAAttention", num_levels=3),
            spatial_prior=dict(type="GaussianPrior", num_levels=3),
        ),
    ),
    "smca with aligner": dict(
        transformer__queries=BOXES,
        transformer__decoder=dict(
            PLAIN,
            aligner=SAM,
            cross_attn=dict(type="SMCAAttention"),
            spatial_prior=dict(type="SalientGaussianPrior"),
        ),
    ),
    "sam without aligner": dict(
        transformer__decoder=dict(PLAIN, cross_attn=dict(type="SAMAttention"))
    ),
    "sam, one level per layer": dict(
        **THREE_LEVELS,
        transformer__queries=BOXES,
        transformer__decoder=dict(
            PLAIN,
            aligner=SAM,
            cross_attn=dict(type="SAMAttention"),
            spatial_prior=dict(type="SalientGaussianPrior"),
            level_schedule=[2, 0],
        ),
    ),
    "deformable": dict(
        transformer__decoder=dict(
            PLAIN, cross_attn=dict(type="DeformableAttention", num_levels=1, num_points=2)
        )
    ),
    "deformable, two-stage, three levels": dict(
        **THREE_LEVELS,
        transformer__queries=TWO_STAGE,
        transformer__decoder=dict(
            PLAIN,
            refine=True,
            cross_attn=dict(type="DeformableAttention", num_levels=3, num_points=2),
        ),
    ),
    "deformable with aligner": dict(
        transformer__queries=TWO_STAGE,
        transformer__decoder=dict(
            PLAIN,
            aligner=SAM,
            cross_attn=dict(type="DeformableAttention", num_levels=1, num_points=2),
        ),
    ),
}


def mix(name: str, **overrides) -> nn.Module:
    """The model of that name, in eval mode."""
    return tiny_model(**MIXES[name], **overrides).eval()
