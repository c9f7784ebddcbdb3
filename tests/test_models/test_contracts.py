"""Parts' declarations are true, and decide which models are refused."""

from dataclasses import replace

import pytest
import torch
from mmdet.registry import MODELS
from support.mixes import BOXES, PLAIN, SAM, TWO_STAGE
from support.models import (
    EMBED_DIMS,
    THREE_LEVELS,
    check_trains,
    make_batch,
    randomise,
    tiny_config,
)
from torch import nn

from fastdetr_mmdet.models.contracts import contract
from fastdetr_mmdet.models.parts import SLOTS, Field, Part

NO_POINTS = dict(transformer__queries__reference="none")
GAUSSIAN = dict(type="GaussianPrior")
DEFORMABLE = dict(type="DeformableAttention", num_levels=1, num_points=2)
DENOISING = dict(_delete_=True, type="DenoisingQueries", queries=dict(type="LearnedBoxQueries"))
TRANSFORMER = dict(transformer__type="DeformableDetrTransformer")


def decoder(**layer):
    """Overrides of tiny_config: a plain decoder with these parts."""
    return dict(transformer__decoder=dict(PLAIN, **layer))


# Overrides -> words of the error: parts or keys that do not fit, and the key to change.
REFUSED = {
    "points from nobody": (
        dict(NO_POINTS),
        ["ConditionalDecoder", "LearnedQueries", "reference='mlp' in transformer.queries"],
    ),
    "points from nobody, for refinement": (
        dict(NO_POINTS, **decoder(refine=True)),
        ["DetrDecoder", "LearnedQueries", "reference='mlp'"],
    ),
    "points from nobody, for a part of a layer": (
        dict(NO_POINTS, **decoder(cross_attn=DEFORMABLE)),
        ["DeformableAttention", "LearnedQueries", "reference='mlp'"],
    ),
    "points from two": (
        decoder(spatial_prior=dict(GAUSSIAN, predict_reference=True)),
        ["LearnedQueries", "GaussianPrior", "predict_reference=False"],
    ),
    "boxes": (
        dict(transformer__decoder__aligner=SAM),
        ["SAMSemanticAligner", "LearnedQueries", "LearnedBoxQueries", "transformer.queries"],
    ),
    "boxes for their relation": (
        decoder(self_attn=dict(type="RelationSelfAttention")),
        ["RelationSelfAttention", "LearnedQueries", "LearnedBoxQueries", "transformer.queries"],
    ),
    "spatial query from nobody": (
        decoder(cross_attn=dict(type="ConditionalAttention")),
        ["ConditionalAttention", "DetrDecoder", "ConditionalDecoder"],
    ),
    "spatial query for nobody": (
        dict(transformer__decoder__cross_attn=dict(type="MultiheadCrossAttention")),
        ["ConditionalDecoder", "MultiheadCrossAttention", "DetrDecoder"],
    ),
    "prior for nobody": (
        decoder(cross_attn=DEFORMABLE, spatial_prior=GAUSSIAN),
        ["GaussianPrior", "DeformableAttention", "transformer.decoder.spatial_prior"],
    ),
    "salient points from nobody": (
        decoder(spatial_prior=dict(type="SalientGaussianPrior")),
        ["SalientGaussianPrior", "transformer.decoder.aligner", "SAMSemanticAligner"],
    ),
    "heads of the aligner": (
        dict(transformer__queries=BOXES, **decoder(aligner=dict(SAM, num_heads=2))),
        ["SAMSemanticAligner", "num_heads=2", "MultiheadCrossAttention", "num_heads=4"],
    ),
    "heads of the prior": (
        decoder(spatial_prior=dict(GAUSSIAN, num_heads=2)),
        ["GaussianPrior", "num_heads=2", "MultiheadCrossAttention", "num_heads=4"],
    ),
    "levels of a layer": (
        decoder(cross_attn=dict(DEFORMABLE, num_levels=4)),
        ["DeformableAttention", "num_levels=4", "num_levels=1 in transformer.decoder.cross_attn"],
    ),
    "levels under a schedule": (
        dict(
            THREE_LEVELS,
            **decoder(cross_attn=dict(DEFORMABLE, num_levels=3), level_schedule=(0, 1)),
        ),
        ["DeformableAttention", "num_levels=3", "num_levels=1", "level_schedule"],
    ),
    "levels of the schedule": (
        dict(transformer__decoder__level_schedule=(0, 0, 1)),
        ["ConditionalDecoder", "level_schedule=[0, 0, 1]", "1 outputs"],
    ),
    "levels of the encoder": (
        dict(
            transformer__encoder=dict(
                _delete_=True, type="DeformableDetrEncoder", num_layers=1, num_levels=3, num_heads=4
            )
        ),
        ["DeformableDetrEncoder", "num_levels=3", "num_levels=1 in transformer.encoder"],
    ),
    "levels of the convolutions": (
        dict(
            THREE_LEVELS,
            transformer__encoder=dict(_delete_=True, type="SMCAConvEncoder", num_levels=2),
        ),
        ["SMCAConvEncoder", "num_levels=2", "num_levels=3 in transformer.encoder"],
    ),
    "levels of the transformer": (
        dict(TRANSFORMER, transformer__num_levels=3),
        ["DeformableDetrTransformer", "num_levels=3", "num_levels=1 in transformer"],
    ),
    "proposals larger than the image": (
        dict(THREE_LEVELS, transformer__queries=dict(TWO_STAGE, box_size=0.3)),
        ["TwoStageQueries", "2", "3", "box_size", "transformer.queries"],
    ),
    "SAMAttention as encoder": (
        dict(transformer__encoder=dict(_delete_=True, type="SAMAttention")),
        ["transformer.encoder", "SAMAttention"],
    ),
    "a mask that self-attention does not read": (
        dict(
            transformer__queries=DENOISING,
            transformer__decoder__self_attn=dict(type="PlainSelfAttention"),
        ),
        ["DenoisingQueries", "PlainSelfAttention", "attend_mask", "transformer.decoder.self_attn"],
    ),
    "no queries": (dict(transformer__queries=None), ["queries", "decoder"]),
    "number of queries": (
        dict(transformer__queries__num_queries=9),
        ["model.num_queries=10", "queries.num_queries=9"],
    ),
    "width of the head": (
        dict(bbox_head__embed_dims=64),
        ["bbox_head.embed_dims=64", "transformer.embed_dims=32"],
    ),
    "width of the neck": (
        dict(neck__out_channels=64),
        ["neck.out_channels=64", "transformer.embed_dims=32"],
    ),
    "width of positions": (
        dict(positional_encoding=dict(type="SinePositionalEncoding", num_feats=8)),
        ["positional_encoding", "embed_dims=32", "num_feats"],
    ),
    "no classes": (dict(bbox_head__num_classes=0), ["bbox_head.num_classes=0"]),
    "classes of denoising": (
        dict(transformer__queries=dict(DENOISING, num_classes=6)),
        ["transformer.queries.num_classes=6"],
    ),
    "two test_cfg": (
        dict(test_cfg=dict(max_per_img=5), bbox_head__test_cfg=dict(max_per_img=6)),
        ["model.test_cfg={'max_per_img': 5}", "model.bbox_head.test_cfg={'max_per_img': 6}"],
    ),
    "two train_cfg": (
        dict(
            train_cfg=dict(assigner=dict(type="HungarianMatcher")),
            bbox_head__train_cfg=dict(assigner=dict(type="ScoreMatcher")),
        ),
        ["model.train_cfg=", "HungarianMatcher", "model.bbox_head.train_cfg=", "ScoreMatcher"],
    ),
    "a matcher for states that no decoder makes": (
        dict(train_cfg=dict(one_to_many=dict(type="ScoreMatcher"))),
        ["train_cfg.one_to_many", "mixed_supervision=True"],
    ),
    "no match per object": (
        dict(train_cfg=dict(one_to_many=dict(type="ScoreMatcher", most=0))),
        ["most=0"],
    ),
    "a loss of proposals that nobody makes": (
        dict(bbox_head__proposal_loss=dict(type="DenseProposalLoss")),
        ["proposal_loss", "LearnedQueries"],
    ),
    "a loss of proposals that are not selected": (
        dict(
            transformer__queries=dict(TWO_STAGE, supervise="selected"),
            bbox_head__proposal_loss=dict(type="DenseProposalLoss"),
        ),
        ["proposal_loss", "supervise"],
    ),
    "auxiliary heads": (dict(aux_heads_on="backbone"), ["aux_heads_on='backbone'"]),
}
for slot, wrong in {
    "decoder.self_attn": "SAMAttention",
    "decoder.aligner": "SAMAttention",
    "decoder.spatial_prior": "SAMSemanticAligner",
    "decoder.cross_attn": "MultiheadSelfAttention",
}.items():
    REFUSED[f"{wrong} as {slot}"] = (
        {f"transformer__{slot.replace('.', '__')}": dict(type=wrong)},
        [f"transformer.{slot}", wrong],
    )


@pytest.mark.parametrize("overrides, named", REFUSED.values(), ids=REFUSED)
def test_refuses_when_the_model_is_built(plain_parts, overrides, named):
    with pytest.raises(ValueError) as error:
        MODELS.build(tiny_config(**overrides))
    assert [name for name in named if name not in str(error.value)] == []


@pytest.mark.parametrize("part", ["SMCAAttention", "MultiheadCrossAttention"])
def test_misspelt_arguments_are_named_with_their_part(part):
    with pytest.raises(TypeError, match=f"{part}.*num_level$|{part}.*num_level[^s]"):
        MODELS.build(tiny_config(**decoder(cross_attn=dict(type=part, num_level=3))))


def test_boxes_are_points_and_a_schedule_shows_one_level():
    MODELS.build(
        tiny_config(
            **THREE_LEVELS,
            transformer__queries=dict(TWO_STAGE, box_size=0.2),
            **decoder(cross_attn=DEFORMABLE, level_schedule=(0, -1), refine=True),
        )
    )


def test_a_prior_of_one_head_serves_all():
    model = MODELS.build(tiny_config(**decoder(spatial_prior=dict(GAUSSIAN, num_heads=1))))
    check_trains(randomise(model), *make_batch())
    prior = model.transformer.decoder.layers[1].spatial_prior
    assert prior.offset_branch.weight.grad.any()


@pytest.mark.parametrize(
    "cross_attn", ["MultiheadCrossAttention", "SMCAAttention", "SAMAttention", DEFORMABLE]
)
def test_positions_are_read_where_that_is_declared(cross_attn):
    """Without encoder the level embedding depends on it, or would have no gradient."""
    cross_attn = cross_attn if isinstance(cross_attn, dict) else dict(type=cross_attn)
    model = randomise(
        MODELS.build(
            tiny_config(
                transformer__encoder=None,
                **TRANSFORMER,
                transformer__num_levels=1,
                **decoder(cross_attn=cross_attn),
            )
        )
    ).eval()
    inputs, samples = make_batch()
    memory = model.make_memory(model.extract_feat(inputs), inputs, samples)
    moved = replace(memory, pos=memory.pos + torch.randn_like(memory.pos))
    differ = (
        model.transformer(memory).hidden_states != model.transformer(moved).hidden_states
    ).any()
    reads = Field.POS in model.transformer.decoder.layers[0].cross_attn.reads
    assert differ == reads
    assert (model.transformer.level_embed is not None) == reads


def test_every_registered_part_has_the_base_class_of_its_role():
    for cls in set(MODELS.module_dict.values()):
        if cls.__module__.startswith("fastdetr_mmdet") and issubclass(cls, Part):
            (base,) = (base for base in SLOTS.values() if issubclass(cls, base))
            assert cls.role == base.role


class Plain(nn.Module):
    """A user's module without declarations."""

    def __init__(self, embed_dims, num_heads=None, layer_index=None, **more):
        super().__init__()
        self.linear = nn.Linear(embed_dims, embed_dims)


class PlainEncoder(Plain):
    def forward(self, memory):
        return memory.with_tokens(self.linear(memory.tokens))


class PlainSelfAttention(Plain):
    def forward(self, queries):
        return self.linear(queries.content)


class PlainAligner(Plain):
    def forward(self, queries, memory):
        return queries.with_content(self.linear(queries.content))


class PlainPrior(Plain):
    def forward(self, queries, memory):
        return (
            self.linear(queries.content)[:, None].mean(-1, keepdim=True)
            - memory.tokens.mean(-1)[:, None, None]
        )


class PlainCrossAttention(Plain):
    def forward(self, queries, memory, spatial_prior=None):
        bias = 0 if spatial_prior is None else spatial_prior.mean()
        return self.linear(queries.content + memory.tokens.mean(1, keepdim=True)) + bias


PLAIN_PARTS = {
    "encoder": PlainEncoder,
    "decoder.self_attn": PlainSelfAttention,
    "decoder.aligner": PlainAligner,
    "decoder.spatial_prior": PlainPrior,
    "decoder.cross_attn": PlainCrossAttention,
}


@pytest.fixture
def plain_parts():
    for cls in PLAIN_PARTS.values():
        MODELS.register_module(module=cls)
    yield
    for cls in PLAIN_PARTS.values():
        MODELS.module_dict.pop(cls.__name__)


@pytest.mark.parametrize("slot", PLAIN_PARTS)
def test_plain_modules_work_in_every_slot(plain_parts, slot):
    config = tiny_config(**decoder(spatial_prior=GAUSSIAN))
    *path, key = slot.split(".")
    place = config.transformer
    for name in path:
        place = place[name]
    place[key] = dict(type=PLAIN_PARTS[slot].__name__)
    model = randomise(MODELS.build(config))
    check_trains(model, *make_batch())
    found = [part for _, part in model.transformer.parts if isinstance(part, PLAIN_PARTS[slot])]
    assert len(found) == (1 if slot == "encoder" else 2)


def test_plain_modules_may_declare():
    module = Plain(EMBED_DIMS)
    module.reads, module.makes, module.num_levels = {Field.BOX}, {Field.BOX}, 2
    declared = contract("transformer.queries", module)
    assert declared.reads == {Field.BOX}
    assert declared.makes == {Field.BOX, Field.POINT}
    assert (declared.num_levels, declared.num_heads) == (2, None)
