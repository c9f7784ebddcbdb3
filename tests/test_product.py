"""Every combination of parts trains, or is refused with a clear error.

The backbone has patches without overlap, so that only the transformer could read padding.
"""

import itertools
from collections import Counter

import pytest
import torch
from mmdet.registry import MODELS
from support.models import (
    EMBED_DIMS,
    NUM_CLASSES,
    NUM_HEADS,
    check_trains,
    make_batch,
    randomise,
    tiny_config,
)
from support.tolerances import assert_near
from torch import nn

LEVELS = {1: (8,), 3: (8, 16, 32)}  # strides
LAYER = dict(num_heads=NUM_HEADS, feedforward_channels=48, dropout=0.0)
SIZES = ((64, 64), (32, 64))

ENCODERS = ("dense", "deformable", "smca", "smca_conv", "hybrid", "none")
ATTENTIONS = ("plain", "conditional", "smca", "deformable", "sam")
QUERIES = ("learned", "learned_boxes", "two_stage", "denoising", "groups", "hybrid")
SWITCH = (False, True)

# Refused combinations: (aligner, prior, attention, queries) -> error.
NO_MATRIX = r"^GaussianPrior .*DeformableAttention .*transformer\.decoder\.spatial_prior"
NO_BOXES = r"^SAMSemanticAligner .*LearnedQueries .*LearnedBoxQueries .*transformer\.queries"


class Patches(nn.Module):
    """Backbone without overlap: one convolution per level with kernel = stride."""

    def __init__(self, strides):
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(3, EMBED_DIMS, s, s) for s in strides)

    def forward(self, images):
        return tuple(level(images) for level in self.levels)


@pytest.fixture(scope="module", autouse=True)
def backbone():
    MODELS.register_module(module=Patches, name="Patches")
    yield
    MODELS._module_dict.pop("Patches")


def encoder_config(kind, num_levels):
    return {
        "dense": dict(type="DetrEncoder", num_layers=1, **LAYER),
        "deformable": dict(
            type="DeformableDetrEncoder", num_layers=1, num_levels=num_levels, num_points=2, **LAYER
        ),
        "smca": dict(type="SMCAEncoder", pattern=["intra", "multi"], **LAYER),
        "smca_conv": dict(
            type="SMCAConvEncoder",
            num_layers=1,
            num_levels=num_levels,
            kernel_size=3,
            feedforward_channels=48,
            dropout=0.0,
            ignore_padding=True,
        ),
        "hybrid": dict(type="HybridEncoder", num_levels=num_levels, depth=1, **LAYER),
        "none": None,
    }[kind]


def model_config(encoder, attention, num_levels, aligner, prior, queries, refine, shared, mixed):
    cross_attn = {
        "plain": dict(type="MultiheadCrossAttention"),
        "conditional": dict(type="ConditionalAttention"),
        "smca": dict(type="SMCAAttention", num_levels=num_levels),
        "deformable": dict(type="DeformableAttention", num_levels=num_levels, num_points=2),
        "sam": dict(type="SAMAttention"),
    }[attention]
    boxes = dict(type="LearnedBoxQueries")
    two_stage = dict(type="TwoStageQueries", ignore_padding=True)
    query_config = {
        "learned": dict(type="LearnedQueries", reference="mlp"),
        "learned_boxes": boxes,
        "two_stage": two_stage,
        "denoising": dict(
            type="DenoisingQueries", queries=dict(type="GroupQueries", queries=boxes, num_groups=2)
        ),
        "groups": dict(type="GroupQueries", queries=two_stage, num_groups=3),
        "hybrid": dict(type="HybridQueries", queries=two_stage, num_extra=8, repeats=2),
    }[queries]
    # boxes differ between layers and images
    relation = dict(type="RelationSelfAttention") if refine and queries == "two_stage" else None
    embedded = dict(type="DeformableDetrTransformer", num_levels=num_levels)
    encoder = encoder_config(encoder, num_levels)
    return tiny_config(
        num_queries=6,
        backbone=dict(_delete_=True, type="Patches", strides=LEVELS[num_levels]),
        neck__in_channels=[EMBED_DIMS] * num_levels,
        neck__num_outs=num_levels,
        transformer__encoder=encoder and dict(encoder, _delete_=True),
        transformer__queries=dict(query_config, _delete_=True),
        transformer__decoder=dict(
            _delete_=True,
            type="ConditionalDecoder" if attention == "conditional" else "DetrDecoder",
            num_layers=2,
            **LAYER,
            self_attn=relation,
            cross_attn=cross_attn,
            aligner=dict(type="SAMSemanticAligner", ignore_padding=True) if aligner else None,
            spatial_prior=dict(type="GaussianPrior", num_levels=num_levels) if prior else None,
            refine=refine,
            mixed_supervision=mixed,
        ),
        bbox_head__share_pred_layer=shared,
        **{f"transformer__{k}": v for k, v in embedded.items() if num_levels > 1},
    )


def check_images_do_not_see_their_batch(model):
    inputs, samples = make_batch(SIZES)
    with torch.no_grad():
        together = model.eval()._forward(inputs, samples)
        found = model.predict(inputs, samples)
        for image, (h, w) in enumerate(SIZES):
            alone = model._forward(
                inputs[image : image + 1, :, :h, :w].contiguous(), samples[image : image + 1]
            )
            for ours, expected in zip(together, alone, strict=True):
                assert_near(ours[:, image], expected[:, 0])
            assert len(found[image].pred_instances) == 6 * NUM_CLASSES


AXES = (ENCODERS, ATTENTIONS, LEVELS, SWITCH, SWITCH, QUERIES, SWITCH, SWITCH, SWITCH)


def refusal(encoder, attention, num_levels, aligner, prior, queries, refine, shared, mixed):
    if prior and attention == "deformable":
        return NO_MATRIX
    return NO_BOXES if aligner and queries == "learned" else None


def pairs(cell):
    """All pairs of choices of a combination, with their axes."""
    return set(itertools.combinations(enumerate(cell), 2))


def covering_set():
    """Valid combinations that cover all pairs of choices for every encoder, attention and level."""
    cells = [cell for cell in itertools.product(*AXES) if refusal(*cell) is None]
    missing = set().union(*map(pairs, cells))
    chosen = []
    for start in [*itertools.product(*AXES[:3]), ()] * 2:
        own = [cell for cell in cells if cell[: len(start)] == start]
        best = max(own, key=lambda cell: len(pairs(cell) & missing))
        if missing & pairs(best) or not any(cell[:3] == start for cell in chosen):
            chosen.append(best)
            missing -= pairs(best)
    assert not missing
    return chosen


def check_builds_or_refuses(cell):
    """Check that the model trains, or is refused if expected."""
    torch.manual_seed(0)
    config = model_config(*cell)
    sentence = refusal(*cell)
    if sentence is not None:
        with pytest.raises(ValueError, match=sentence):
            MODELS.build(config)
        return "refused"
    model = randomise(MODELS.build(config))
    try:
        check_trains(model, *make_batch(SIZES))
        check_images_do_not_see_their_batch(model)
    except (AssertionError, RuntimeError) as error:
        raise AssertionError(f"{cell}") from error
    return "trains"


@pytest.mark.parametrize("cell", covering_set(), ids=lambda cell: "-".join(map(str, cell)))
def test_every_pair_of_choices_trains(cell):
    assert check_builds_or_refuses(cell) == "trains"


@pytest.mark.slow
@pytest.mark.parametrize("num_levels", LEVELS)
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_whole_product(encoder, attention, num_levels):
    outcome = Counter(
        check_builds_or_refuses((encoder, attention, num_levels, *rest, False))
        for rest in itertools.product(SWITCH, SWITCH, QUERIES[:4], SWITCH, SWITCH)
    )
    assert sum(outcome.values()) == 64
