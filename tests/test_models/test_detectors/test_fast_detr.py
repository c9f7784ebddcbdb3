"""The detector: shapes, losses, gradients, predictions, and refused configs."""

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from support.models import (
    NUM_QUERIES,
    THREE_LEVELS,
    check_trains,
    make_batch,
    tiny_config,
    tiny_model,
)
from support.tolerances import assert_near

NUM_LAYERS = 3
TWO_STAGE = dict(type="TwoStageQueries", _delete_=True)
VARIANTS = {  # test_product.py has every pair of parts
    "conditional": {},
    "refine, shared branches": dict(transformer__decoder__refine=True),
    "deformable cross-attention": THREE_LEVELS
    | dict(
        transformer__decoder__type="DetrDecoder",
        transformer__decoder__refine=True,
        transformer__decoder__cross_attn=dict(type="DeformableAttention", num_levels=3),
    ),
    "two stage": dict(
        transformer__queries=TWO_STAGE,
        transformer__decoder__refine=True,
        bbox_head__share_pred_layer=False,
    ),
    "two stage, class aware, shared branches": dict(
        transformer__queries=dict(TWO_STAGE, class_aware=True, content="memory")
    ),
    "three levels, one per layer": THREE_LEVELS
    | dict(transformer__decoder__level_schedule=(2, 1, 0)),
}
variants = pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS.keys())


def loss_names(two_stage):
    names = {"loss_cls", "loss_bbox", "loss_iou"}
    layers = ["", "d0.", "d1."] + (["enc_"] if two_stage else [])
    return {layer + name for layer in layers for name in names}


@pytest.mark.parametrize("objects", [(3, 0), (0, 0)], ids=["one empty", "none"])
@variants
def test_every_parameter_learns(overrides, objects):
    """mmdet's loss names, and a finite gradient for every parameter, for any objects."""
    losses = check_trains(tiny_model(**overrides), *make_batch(objects=objects))
    assert set(losses) == loss_names("TwoStage" in str(overrides))
    assert all(loss.shape == () and torch.isfinite(loss) for loss in losses.values())
    if objects == (0, 0):
        assert losses["loss_bbox"] == losses["loss_iou"] == 0


def test_positions_are_shared_when_nothing_is_padded():
    """An unpadded batch encodes positions once; they equal an all-valid mask's."""
    model = tiny_model()
    inputs, samples = make_batch(((64, 96), (64, 96)))
    memory = model.make_memory(model.extract_feat(inputs), inputs, samples)
    expected = model.positional_encoding(torch.zeros(2, 2, 3, dtype=torch.bool))
    assert memory.padding_mask is None
    assert_near(memory.pos, expected.flatten(2).transpose(1, 2))
    without_samples = model.make_memory(model.extract_feat(inputs), inputs, None)
    assert torch.equal(memory.pos, without_samples.pos)


def test_raw_outputs_need_no_data_samples():
    model = tiny_model().eval()
    inputs, samples = make_batch(((64, 96), (64, 96)))
    for ours, expected in zip(model._forward(inputs), model._forward(inputs, samples), strict=True):
        assert torch.equal(ours, expected)


def test_rescaled_boxes_are_in_pixels_of_the_original_image():
    model = tiny_model().eval()
    inputs, samples = make_batch(scale_factor=(0.5, 0.25))
    with torch.no_grad():
        original = [r.pred_instances.bboxes for r in model.predict(inputs, samples, rescale=True)]
        resized = [r.pred_instances.bboxes for r in model.predict(inputs, samples, rescale=False)]
    for there, here, sample in zip(original, resized, samples, strict=True):
        assert_near(there, here * torch.tensor([2.0, 4.0, 2.0, 4.0]))
        h, w = sample.ori_shape
        assert (there <= torch.tensor([w, h, w, h])).all()


@pytest.mark.parametrize("rescale", [True, False])
def test_images_without_resize_keep_their_pixels(rescale):
    """Pipelines without Resize give no scale factor; samples made by hand give nothing."""
    model = tiny_model().eval()
    inputs, samples = make_batch(sizes=[(64, 96)] * 2)
    with torch.no_grad():
        expected = [s.pred_instances.bboxes for s in model.predict(inputs, samples)]
        for keys in (("img_shape", "ori_shape"), ("ori_shape",), ("img_shape",), ()):
            given = [
                DetDataSample(metainfo={key: sample.get(key) for key in keys}) for sample in samples
            ]
            for sample, boxes in zip(model.predict(inputs, given, rescale), expected, strict=True):
                assert_near(sample.pred_instances.bboxes, boxes)


@pytest.mark.smoke
def test_trains_through_the_runner_interface():
    """mmengine's calls: data preprocessor, loss mode, parsed losses; then predict mode."""
    model = tiny_model(data_preprocessor__pad_size_divisor=32)
    inputs, samples = make_batch()
    images = [
        (inputs[i, :, : s.img_shape[0], : s.img_shape[1]] * 20 + 100).clamp(0, 255).byte()
        for i, s in enumerate(samples)
    ]
    data = model.data_preprocessor(dict(inputs=images, data_samples=samples), True)
    loss, logged = model.parse_losses(model(**data, mode="loss"))
    assert torch.isfinite(loss)
    assert {"loss", *loss_names(False)} == set(logged)
    model.eval()
    data = model.data_preprocessor(dict(inputs=images, data_samples=samples), False)
    with torch.no_grad():
        assert len(model(**data, mode="predict")) == 2
        assert len(model(**data, mode="tensor")) == 2


@pytest.mark.parametrize("share", [True, False])
def test_box_branches_run_once_per_layer(share):
    """Also if the decoder refines with them; gradients come from the losses."""
    model = tiny_model(transformer__decoder__refine=True, bbox_head__share_pred_layer=share)
    calls = []
    for branch in set(model.bbox_head.box_branches):
        branch.register_forward_hook(lambda _, __, output: calls.append(output.shape))
    losses = model.loss(*make_batch())
    assert calls == [(2, NUM_QUERIES, 4)] * 2 + [(1, 2, NUM_QUERIES, 4) if share else calls[0]]
    for layer, name in enumerate(["d0.loss_bbox", "d1.loss_bbox", "loss_bbox"]):
        weight = model.bbox_head.box_branches[layer][0].weight
        (gradient,) = torch.autograd.grad(losses[name], weight, retain_graph=True)
        assert gradient.any()


def test_a_prior_that_predicts_references_embeds_once_per_layer():
    model = tiny_model(
        transformer__queries__reference="none",
        transformer__decoder__type="DetrDecoder",
        transformer__decoder__spatial_prior=dict(type="GaussianPrior", predict_reference=True),
    )
    calls = []
    for index, layer in enumerate(model.transformer.decoder.layers):
        layer.input_norm.register_forward_hook(lambda *_, index=index: calls.append(index))
    model.loss(*make_batch())
    assert calls == [0, 1, 2]


def test_number_of_queries_is_set_once():
    assert tiny_model(num_queries=7).transformer.queries.num_queries == 7
    assert tiny_model(num_queries=None).transformer.queries.num_queries == 300
    model = tiny_model(num_queries=7, transformer__queries__num_queries=7)
    assert model.transformer.queries.num_queries == 7


def test_building_leaves_the_config_as_it_was():
    config = tiny_config()
    before = config.to_dict()
    MODELS.build(config)
    assert config.to_dict() == before


def test_what_the_detector_decides_is_not_the_configs_to_say():
    wrong = dict(num_pred_layer=7, as_two_stage=True, class_aware_proposals=True)
    model = tiny_model(
        bbox_head__share_pred_layer=False, **{f"bbox_head__{k}": v for k, v in wrong.items()}
    )
    assert len(model.bbox_head.cls_branches) == 3
    assert model.bbox_head.proposal_branches is None
