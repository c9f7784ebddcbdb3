"""Denoising with every query initialiser that makes boxes; DN-DETR's noise; errors."""

import re

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from support.models import (
    NUM_CLASSES,
    NUM_QUERIES,
    check_trains,
    make_batch,
    randomise,
    tiny_config,
)
from support.runs import ROOT
from support.tolerances import assert_near

from fastdetr_mmdet.structures import Targets

INNER = [
    dict(type="TwoStageQueries", content="box"),
    dict(type="TwoStageQueries", content="memory", class_aware=True),
    dict(type="TwoStageQueries", content="learned", supervise="selected"),
    dict(type="LearnedBoxQueries"),
]


def denoising(inner, **kwargs):
    return dict(type="DenoisingQueries", queries=inner, num_classes=NUM_CLASSES, **kwargs)


def detector(inner, kind="ConditionalDecoder", **kwargs):
    config = tiny_config(transformer__decoder__refine=True)
    config.transformer.queries = denoising(inner, num_dn_queries=6, **kwargs)
    config.transformer.decoder.type = "DetrDecoder" if kind == "SAM" else kind
    if kind == "SAM":
        config.transformer.decoder.update(
            aligner=dict(type="SAMSemanticAligner"), cross_attn=dict(type="SAMAttention")
        )
    torch.manual_seed(0)
    return randomise(MODELS.build(config))


@pytest.mark.parametrize("kind", ["DetrDecoder", "ConditionalDecoder", "SAM"])
@pytest.mark.parametrize("inner", INNER, ids=lambda cfg: "-".join(map(str, cfg.values())))
def test_matching_losses_are_those_without_groups(inner, kind):
    """Groups change no other loss; all parameters have gradients, with and without objects."""
    model = detector(inner, kind)
    plain = model.transformer.queries.queries
    inputs, samples = make_batch(objects=(2, 1))
    losses = model.loss(inputs, samples)
    assert {"dn_loss_cls", "d0.dn_loss_bbox"} <= set(losses)
    model.zero_grad()
    sum(losses.values()).backward()
    assert model.transformer.queries.label_embedding.weight.grad.any()
    wrapped, model.transformer.queries = model.transformer.queries, plain
    for name, value in model.loss(inputs, samples).items():
        assert_near(losses[name], value)
    model.transformer.queries = wrapped
    model.zero_grad()
    losses = check_trains(model, *make_batch(objects=0))
    assert all(value == 0 for name, value in losses.items() if "dn_" in name)


def test_processes_agree_on_the_number_of_boxes_in_one_step(monkeypatch):
    """A process without objects must not hang the others."""
    asked = []
    name = "fastdetr_mmdet.models.heads.fast_detr_head.reduce_mean"
    monkeypatch.setattr(name, lambda x: asked.append(x.tolist()) or x)
    for objects in (2, 0):
        detector(INNER[1], num_groups=3).loss(*make_batch(objects=objects))
    assert asked == [[4, 4, 12], [0, 0, 0]]


def test_prediction_has_no_groups():
    model = detector(INNER[3]).eval()
    with torch.no_grad():
        output = model.forward_transformer(*make_batch())
    assert output.groups == () and output.hidden_states.shape[2] == NUM_QUERIES


def test_noise_of_dn_detr():
    part = detector(
        INNER[3], contrastive=False, num_groups=2, label_noise=0.2, box_noise=0.4
    ).transformer.queries
    targets = Targets.from_data_samples(make_batch(objects=3)[1], "cpu")
    torch.manual_seed(0)
    labels, boxes = part.noise(targets, 2000)
    changed = (labels != targets.labels).float().mean()
    assert changed == pytest.approx(0.2 * (NUM_CLASSES - 1) / NUM_CLASSES, abs=0.02)
    moved = (boxes - targets.boxes) / targets.boxes[:, 2:].repeat(1, 2)
    assert moved[..., :2].abs().max() <= 0.2 + 1e-5 and moved[..., 2:].abs().max() <= 0.4 + 1e-5
    assert moved[..., 2:].abs().mean() > 0.15


def test_groups_of_dn_detr_have_no_background():
    model = detector(INNER[3], contrastive=False, num_groups=3).train()
    inputs, samples = make_batch(objects=(2, 1))
    targets = Targets.from_data_samples(samples, "cpu")
    _, group = model.forward_transformer(inputs, samples, targets).groups
    assert (group.size, group.copies) == (6, 3)
    assert group.pairs[0].sort().values.tolist() == [0, 1, 2, 3, 4, 5, 6, 8, 10]
    assert torch.equal(group.pairs[1], torch.arange(3).repeat(3))


@pytest.mark.parametrize("inner", INNER[1:], ids=lambda cfg: cfg["type"])
def test_weights_of_a_model_without_denoising_load(inner):
    """All weights load, except the missing class embedding."""
    part = detector(inner).transformer.queries
    plain = {f"q.{key}": value + 1 for key, value in part.queries.state_dict().items()}
    holder = torch.nn.ModuleDict(dict(q=part))
    missing, unexpected = holder.load_state_dict(plain, strict=False)
    assert (missing, unexpected) == (["q.label_embedding.weight"], [])
    for key, value in part.queries.state_dict().items():
        assert torch.equal(value, plain[f"q.{key}"])
    assert holder.load_state_dict(holder.state_dict()).missing_keys == []


def test_config_of_the_page(tmp_path):
    (code,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "configs/dino/README.md").read_text(), re.S
    )
    path = tmp_path / "config.py"
    path.write_text(code.replace("./configs", f"{ROOT}/configs"))
    model = MODELS.build(Config.fromfile(path).model)
    losses = model.loss(*make_batch(((64, 64), (64, 48)), objects=(2, 1)))
    assert {"dn_loss_iou", "d0.dn_loss_cls", "enc_loss_cls"} <= set(losses)
    assert type(model.bbox_head.loss_cls).__name__ == "MALLoss"
    cost = model.bbox_head.assigner.match_costs[0]
    assert (type(cost).__name__, cost.weight) == ("PositionModulatedFocalCost", 2.0)
    assert model.transformer.decoder.look_forward_twice
