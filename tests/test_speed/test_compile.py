"""``torch.compile``: graphs, graph breaks of the whole detector, and equal results."""

import pytest
import torch
from support.models import make_batch
from support.small import small_detector

MODELS = [
    "conditional_detr/conditional-detr_r50_8xb2-50e_coco",
    "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco",
    "smca_detr/smca-detr_r50_8xb2-50e_coco",
    "smca_detr/smca-detr-ms_r50_8xb1-50e_coco",
    "sam_detr/sam-detr_r50_4xb4-50e_coco",
    "sam_detr/sam-detr-ms-smca_r50_8xb2-50e_coco",
    "mixed/relation-dino-4scale_r50_8xb2-12e_coco",
    "mixed/hybrid-dino-4scale_r50_8xb2-12e_coco",
]


def parts(model):
    """Inputs of transformer and head for images of two sizes, with padding masks."""
    batch = make_batch()
    with torch.no_grad():
        features = model.extract_feat(batch[0])
        memory = model.make_memory(features, *batch)

    def transformer_and_head(memory):
        head = model.bbox_head
        output = model.transformer(memory, head.box_branches, head.proposal_branches)
        return head(output)

    return transformer_and_head, memory


# Tracing takes seconds, so only one model is not slow.
QUICK = MODELS[1:2]


@pytest.mark.parametrize(
    "name, training",
    [
        pytest.param(m, t, marks=[] if m in QUICK and not t else pytest.mark.slow)
        for m in MODELS
        for t in (False, True)
    ],
)
def test_no_graph_breaks(name, training):
    model = small_detector(name).train(training)
    function, memory = parts(model)
    torch._dynamo.reset()
    explained = torch._dynamo.explain(function)(memory)
    reasons = [str(r.reason) for r in explained.break_reasons]
    assert explained.graph_break_count == 0, reasons
    assert explained.graph_count == 1


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_backbone_and_neck_are_one_graph(training):
    model, (inputs, _) = small_detector(MODELS[0]).train(training), make_batch()
    torch._dynamo.reset()
    compiled = torch.compile(model.extract_feat, backend="aot_eager", fullgraph=True)
    results = []
    for function in (model.extract_feat, compiled):
        model.zero_grad()
        maps = function(inputs)
        sum(x.square().mean() for x in maps).backward()
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        results.append((list(maps), grads))
    assert results[0][1]
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_detector_breaks_only_where_padding_is_read():
    """Padding is computed on the host, between neck and transformer."""
    model = small_detector(MODELS[0])
    torch._dynamo.reset()
    explained = torch._dynamo.explain(model._forward)(*make_batch())
    assert {reason.user_stack[-1].name for reason in explained.break_reasons} == {"host_shapes"}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_compiled_equals_eager(name):
    """Traced and run operator by operator, without a backend's optimisations."""
    model = small_detector(name)
    function, memory = parts(model)
    torch._dynamo.reset()
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    eager, traced = function(memory), compiled(memory)
    torch.testing.assert_close(traced, eager, rtol=1e-4, atol=1e-5)
    results = []
    for outputs in (eager, traced):
        model.zero_grad()
        sum(x.square().mean() for x in outputs).backward()
        results.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert results[0].keys() == results[1].keys()
    for key, grad in results[0].items():
        torch.testing.assert_close(results[1][key], grad, rtol=1e-3, atol=1e-5, msg=key)
