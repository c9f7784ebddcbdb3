"""Common requirements of all registered parts."""

from dataclasses import dataclass, replace

import pytest
import torch
from mmdet.registry import MODELS
from support.matching import make_targets
from support.memories import (
    in_double,
    make_memory,
    make_queries,
    only,
    queries_of,
    with_other_padding,
    without_padding,
)
from support.models import EMBED_DIMS, NUM_CLASSES, NUM_HEADS, NUM_QUERIES, randomise
from support.tolerances import assert_near
from torch import nn

from fastdetr_mmdet.models.parts import Part, Transformer
from fastdetr_mmdet.structures import SalientPoints

STRIDES = {1: (8,), 3: (8, 16, 32)}
SIZES = ((64, 128), (32, 96))  # image sizes with whole cells on every level and exact ratios
DENSE = dict(num_layers=2, feedforward_channels=48)
IGNORE = dict(ignore_padding=True)
DENSE_QUERIES = dict(num_queries=NUM_QUERIES, class_aware=True, residual_classes=True) | dict(
    num_convs=2, box_form="distance", distinct=0.5
)
BOXES = dict(type="LearnedBoxQueries", num_queries=NUM_QUERIES)


@dataclass(frozen=True)
class Case:
    """A part with options, on a number of levels, optionally after an aligner."""

    type: str
    options: dict
    levels: int = 1
    salient: bool = False
    heads: bool = True  # whether it has heads and dropout

    def __str__(self):
        more = [f"{key}={value}" for key, value in self.options.items() if key not in DENSE]
        return ", ".join([self.type, *more, *["salient points"] * self.salient])

    def build(self, seed=0, **options):
        torch.manual_seed(seed)
        width = dict(embed_dims=EMBED_DIMS)
        if self.heads or "Prior" in self.type:
            width |= dict(num_heads=NUM_HEADS)
        part = MODELS.build(dict(type=self.type) | width | self.options | options)
        # groups exist in training only and draw no random numbers
        return randomise(part).double().train(self.type in ("GroupQueries", "HybridQueries"))

    def call(self, part, queries, memory):
        """All tensors of the part, batch first; maps as (bs, num_tokens, dims)."""
        if self.type.endswith("Encoder"):
            return dict(tokens=part(memory).tokens)
        if self.type.endswith("SelfAttention"):
            return dict(content=part(queries))
        if self.type.endswith("Aligner"):
            return vars(part(queries, memory).salient)
        if self.type.endswith("Prior"):
            return dict(scores=part(queries, memory).permute(0, 3, 1, 2))
        if self.type.endswith("Decoder"):
            return dict(hidden=part(queries, memory, branches(4, 2)).hidden_states.transpose(0, 1))
        if self.type.endswith("Queries"):
            targets = make_targets((2, 1), NUM_CLASSES)
            made, proposals = part(memory, branches(NUM_CLASSES, 1, 4), targets)
            names = ("content", "pos", "reference_logits", "class_logits")
            found = {key: getattr(made, key) for key in names}
            if proposals:
                found |= {key: getattr(proposals, key) for key in ("cls_scores", "boxes")}
            return {key: value for key, value in found.items() if value is not None}
        return dict(content=part(queries, memory))


def branches(*sizes):
    """A head's branches: ``(4, 2)`` for boxes of two layers, ``(classes, 1, 4)`` for proposals."""
    dims = [sizes[0]] * sizes[1] + list(sizes[2:])
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.ModuleList(nn.Linear(EMBED_DIMS, size) for size in dims).double()


CASES = [
    Case("DetrEncoder", DENSE, 3),
    Case("DeformableDetrEncoder", dict(DENSE, num_levels=3), 3),
    Case("DeformableDetrEncoder", dict(DENSE, num_levels=1, memory_fusion=True)),
    Case("SMCAEncoder", dict(feedforward_channels=48), 3),
    Case("SMCAConvEncoder", dict(DENSE, num_levels=3, reduce_first=True) | IGNORE, 3, heads=False),
    Case("HybridEncoder", dict(feedforward_channels=48, num_levels=3), 3),
    Case("HybridEncoder", dict(feedforward_channels=48, num_levels=1)),
    Case("MultiheadSelfAttention", {}),
    Case("ConditionalSelfAttention", {}),
    Case("RelationSelfAttention", dict(layer_index=1)),
    Case("MultiheadCrossAttention", {}, 3),
    Case("MultiheadCrossAttention", {}, salient=True),
    Case("ConditionalAttention", dict(layer_index=0), 3),
    Case("ConditionalAttention", dict(layer_index=1)),
    Case("SMCAAttention", dict(num_levels=3), 3),
    Case("SMCAAttention", dict(num_levels=1), salient=True),
    Case("SAMAttention", {}, 3, salient=True),
    Case("SAMAttention", {}),
    Case("DeformableAttention", dict(num_levels=3), 3),
    Case("DeformableAttention", dict(num_levels=1)),
    Case("SAMSemanticAligner", dict(predict_scales=True) | IGNORE, 3),
    Case("GaussianPrior", dict(num_levels=3, scale_type="correlated"), 3, heads=False),
    Case("GaussianPrior", dict(num_levels=1, scale_type="single"), heads=False),
    Case("SalientGaussianPrior", {}, 3, salient=True, heads=False),
    Case("LearnedQueries", dict(content="learned", reference="mlp"), heads=False),
    Case("LearnedBoxQueries", {}, heads=False),
    Case("TwoStageQueries", dict(num_queries=NUM_QUERIES) | IGNORE, 3, heads=False),
    Case("TwoStageQueries", dict(num_queries=NUM_QUERIES, content="memory"), heads=False),
    Case("TwoStageQueries", DENSE_QUERIES | IGNORE, 3, heads=False),
    Case("DenoisingQueries", dict(queries=BOXES, num_classes=NUM_CLASSES), heads=False),
    Case("GroupQueries", dict(queries=BOXES, num_groups=3), heads=False),
    Case("HybridQueries", dict(queries=BOXES, num_extra=7, repeats=2), heads=False),
    Case("DetrDecoder", dict(DENSE, refine=True), 3),
    Case("DetrDecoder", dict(DENSE, refine=True, mixed_supervision=True)),
    Case("ConditionalDecoder", dict(DENSE, refine=True), 3),
]
each = pytest.mark.parametrize("case", CASES, ids=str)
WITH_HEADS = [case for case in CASES if case.heads]
# Without attention weights: deformable cross-attention; aligners have gates.
WITH_DROPOUT = [
    c for c in WITH_HEADS if c.type not in ("DeformableAttention", "SAMSemanticAligner")
]


def inputs(case, levels=None):
    """Queries with all fields that parts read, and a memory with padding."""
    queries = make_queries(reference_dims=4)
    queries = replace(
        queries,
        embedded=torch.randn_like(queries.content),
        previous_reference=torch.rand_like(queries.reference),
    )
    if case.salient:
        shape = (2, NUM_QUERIES, NUM_HEADS)
        content, pos = torch.randn(2, *shape, EMBED_DIMS)
        points, scales = torch.rand(*shape, 2), torch.randn(*shape, 2)
        queries = queries.with_salient(SalientPoints(content, pos, points, scales))
    return in_double(queries), in_double(make_memory(SIZES, STRIDES[levels or case.levels]))


def test_every_part_is_here():
    parts = {
        cls.__name__
        for cls in MODELS.module_dict.values()
        if cls.__module__.startswith("fastdetr_mmdet.models")
        and issubclass(cls, Part)
        and not issubclass(cls, Transformer)
    }
    assert parts == {case.type for case in CASES}


@each
@torch.no_grad()
def test_images_do_not_see_each_other(case):
    part, (queries, memory) = case.build(), inputs(case)
    together = case.call(part, queries, memory)
    for image in range(2):
        alone = case.call(part, queries_of(queries, image), only(memory, image))
        assert alone.keys() == together.keys()
        for name, tensor in alone.items():
            assert_near(tensor[0], together[name][image], torch.float64)


@each
@torch.no_grad()
def test_padding_is_invisible(case):
    """Content on padding changes only padding."""
    part, (queries, memory) = case.build(), inputs(case)
    found = case.call(part, queries, memory)
    other = case.call(part, queries, with_other_padding(memory))
    valid = ~memory.padding_mask
    for name, tensor in found.items():
        if name in ("cls_scores", "boxes", "tokens", "scores"):  # per token, not per query
            if tensor.shape[1] != valid.shape[1]:  # the first level is reduced
                valid = torch.cat(
                    [~m.padding_mask for m in memory.levels[1:2] + memory.levels[1:]], 1
                )
            assert_near(tensor[valid], other[name][valid], torch.float64)
        else:
            assert_near(tensor, other[name], torch.float64)


ONE_LEVEL = [case for case in CASES if case.options.get("num_levels", 1) == 1]


@pytest.mark.parametrize("case", ONE_LEVEL, ids=str)
@torch.no_grad()
def test_an_image_is_the_same_without_its_padding(case):
    part, (queries, memory) = case.build(), inputs(case, levels=1)
    padded = case.call(part, queries, memory)
    alone = case.call(part, queries_of(queries, 1), in_double(without_padding(memory, 1)))
    for name, tensor in alone.items():
        whole = padded[name][1]
        if len(whole) != len(tensor[0]):  # of tokens
            whole = whole[~memory.padding_mask[1]]
        assert_near(tensor[0], whole, torch.float64)


@pytest.mark.parametrize("case", WITH_DROPOUT, ids=str)
@torch.no_grad()
def test_dropout_in_training_only(case):
    part, given = case.build(dropout=0.5), inputs(case)
    for training in (False, True):
        part.train(training)
        ((first,), (second,)) = (case.call(part, *given).values() for _ in range(2))
        assert torch.equal(first, second) == (not training)


@pytest.mark.parametrize("case", [c for c in CASES if c.type != "SalientGaussianPrior"], ids=str)
def test_gradient_reaches_all_parameters(case):
    """For denoising in training only; the prior at salient points has no parameters."""
    part = case.build().train()
    made = case.call(part, *inputs(case)).values()
    sum(tensor.square().sum() for tensor in made).backward()
    without = [n for n, p in part.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("case", WITH_HEADS, ids=str)
def test_heads_must_divide(case):
    with pytest.raises(ValueError) as error:
        case.build(num_heads=5)
    assert [n for n in ("embed_dims=32", "num_heads=5") if n not in str(error.value)] == []
