"""Detectors with dense losses of proposals, and with auxiliary dense heads."""

import pytest
import torch
from mmdet.registry import MODELS
from support.models import (
    EMBED_DIMS,
    THREE_LEVELS,
    check_trains,
    make_batch,
    tiny_config,
    tiny_model,
)
from support.tolerances import assert_near

from fastdetr_mmdet.structures import Targets

ATSS = dict(type="DenseProposalLoss", assigner=dict(type="ATSSAssigner", topk=9))
LOSS = dict(type="DenseProposalLoss", assigner=dict(type="DynamicSoftLabelAssigner", topk=13))
QUERIES = dict(type="TwoStageQueries", _delete_=True, num_convs=1) | dict(
    box_form="distance", distinct=0.8, content="memory", ignore_padding=True
)
DENSE = dict(
    THREE_LEVELS,
    transformer__encoder=None,
    transformer__queries=dict(QUERIES, residual_classes=True),
    transformer__decoder__type="DetrDecoder",
    transformer__decoder__refine=True,
    transformer__decoder__cross_attn=dict(type="DeformableAttention", num_levels=3),
    bbox_head__proposal_loss=LOSS,
)
NOISY = dict(DENSE, transformer__queries=dict(type="DenoisingQueries", _delete_=True))
NOISY["transformer__queries"]["queries"] = {
    key: value for key, value in DENSE["transformer__queries"].items() if key != "_delete_"
}
GROUPS = dict(DENSE, transformer__queries=dict(NOISY["transformer__queries"], num_groups=2))
GROUPS["transformer__queries"]["type"] = "GroupQueries"
AUX = dict(
    type="ATSSHead",
    in_channels=EMBED_DIMS,
    stacked_convs=1,
    feat_channels=8,
    norm_cfg=dict(type="GN", num_groups=2),
    loss_bbox=dict(type="GIoULoss", loss_weight=2.0),
    anchor_generator=dict(
        type="AnchorGenerator",
        ratios=[1.0],
        octave_base_scale=8,
        scales_per_octave=1,
        strides=[8, 16, 32],
    ),
    train_cfg=dict(assigner=dict(type="ATSSAssigner", topk=9), allowed_border=-1, pos_weight=-1),
)


@pytest.mark.parametrize("share", [True, False])
@torch.no_grad()
def test_an_untrained_decoder_gives_the_proposals_back(share):
    torch.manual_seed(0)
    options = dict(DENSE, bbox_head__share_pred_layer=share)
    model = MODELS.build(tiny_config(**options)).eval()
    # proposals as after training, so that they differ; an initial decoder
    for branch in (model.bbox_head.cls_branches[-1], model.bbox_head.reg_branches[-1][-1]):
        torch.nn.init.normal_(branch.weight, std=0.3)
    inputs, samples = make_batch()
    output = model.forward_transformer(inputs, samples)
    logits, boxes = model.bbox_head(output)
    chosen = output.class_logits, output.reference_logits[0].sigmoid()
    assert chosen[0].std() > 0.1 and chosen[1].std() > 0.1
    for one in (*zip(logits, boxes, strict=True), model.bbox_head.last_layer(output)):
        assert torch.equal(one[0], chosen[0]) and torch.equal(one[1], chosen[1])
    metas = [sample.metainfo for sample in samples]
    expected = model.bbox_head.predict_by_feat(*chosen, metas, True)
    for sample, wanted in zip(model.predict(inputs, samples), expected, strict=True):
        for key in ("scores", "labels", "bboxes"):
            assert torch.equal(sample.pred_instances[key], wanted[key])


def test_classes_are_added_to_detached_logits_and_groups_start_at_the_prior():
    model = tiny_model(**NOISY)
    inputs, samples = make_batch()
    output = model.forward_transformer(inputs, samples, Targets.from_data_samples(samples, "cpu"))
    assert not output.class_logits.requires_grad
    matching, dn = output.class_logits.shape[1], output.groups[-1].size
    logits, _ = model.bbox_head(output)
    for layer, hidden in enumerate(output.hidden_states):
        own = model.bbox_head.cls_branches[layer](hidden)
        assert_near(logits[layer, :, :matching], own[:, :matching] + output.class_logits)
        prior = torch.logit(torch.tensor(0.01))
        assert_near(logits[layer, :, matching:], own[:, matching:] + prior)
    assert logits.shape[2] == matching + dn


@pytest.mark.parametrize("objects", [(2, 1), (0, 0)])
@pytest.mark.parametrize("on", ["neck", "encoder"])
@pytest.mark.parametrize(
    "options",
    [DENSE, NOISY, GROUPS, dict(DENSE, bbox_head__proposal_loss=ATSS)],
    ids=["dynamic soft labels", "denoising", "groups", "ATSS"],
)
def test_every_parameter_has_a_finite_gradient(options, on, objects):
    model = tiny_model(**options, aux_heads=[AUX], aux_heads_on=on)
    losses = check_trains(model, *make_batch(objects=objects))
    assert {"enc_loss_cls", "enc_loss_iou", "aux0.loss_cls", "aux0.loss_centerness"} <= set(losses)


@pytest.mark.parametrize("on", ["neck", "encoder"])
def test_auxiliary_heads_are_there_in_training_only(on):
    """Their losses equal the head's alone, others do not change; checkpoints load both ways."""
    options = dict(DENSE, transformer__encoder=dict(type="DetrEncoder", num_layers=1))
    options["transformer__encoder"] |= dict(num_heads=4, feedforward_channels=48, dropout=0.0)
    plain, model = (
        tiny_model(**options),
        tiny_model(**options, aux_heads=[AUX, AUX], aux_heads_on=on),
    )
    lone = plain.state_dict()
    model.load_state_dict(lone, strict=True)
    plain.load_state_dict(model.state_dict(), strict=True)
    assert not any("aux" in key for key in lone)
    inputs, samples = make_batch()
    losses, expected = model.loss(inputs, samples), plain.loss(inputs, samples)
    maps = model.extract_feat(inputs)
    if on == "encoder":
        maps = plain.transformer.encoder(plain.make_memory(maps, inputs, samples)).maps()
    for index, head in enumerate(model.aux_heads):
        own = head.loss(tuple(maps), samples)
        expected |= {f"aux{index}.{name}": value for name, value in own.items()}
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert_near(losses[name], value)
    found, wanted = (x.eval().predict(*make_batch())[0].pred_instances for x in (model, plain))
    assert torch.equal(found.bboxes, wanted.bboxes)
    model.init_weights()
    assert model.aux_heads[0].atss_cls.bias.max() < -4  # the focal prior
