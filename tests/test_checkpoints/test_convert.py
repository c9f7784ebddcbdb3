"""Official names -> ours, or a sentence that says what does not fit."""

import pytest
import torch

from fastdetr_mmdet.checkpoints import METHODS, convert_state_dict
from fastdetr_mmdet.checkpoints.convert import convert_state_dict as by_its_first_place

OFFICIAL = {
    "query_embed.weight": "transformer.queries.pos.weight",
    "input_proj.bias": "neck.convs.0.conv.bias",
    "backbone.0.body.layer4.2.conv3.weight": "backbone.layer4.2.conv3.weight",
    "transformer.encoder.layers.5.self_attn.in_proj_weight": (
        "transformer.encoder.layers.5.in_proj.proj.weight"
    ),
    "transformer.decoder.layers.11.ca_qpos_sine_proj.bias": (
        "transformer.decoder.layers.11.cross_attn.q_spatial_proj.bias"
    ),
    "bbox_embed.layers.2.weight": "bbox_head.reg_branches.0.4.weight",
}


def test_renames_and_keeps_the_tensors():
    official = {key: torch.zeros(1) for key in OFFICIAL}
    converted = convert_state_dict(official, "conditional_detr")
    assert list(converted) == list(OFFICIAL.values())
    for key, name in OFFICIAL.items():
        assert converted[name] is official[key]


def test_is_where_it_was():
    assert by_its_first_place is convert_state_dict


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_rule_is_anchored(method):
    """A rule that matches in the middle of a name would rename by accident."""
    assert all(pattern.startswith("^") for pattern, _ in METHODS[method].renames)


def test_unknown_method():
    with pytest.raises(ValueError, match="Unknown method 'detr'; choose one of conditional_detr"):
        convert_state_dict({}, "detr")


def test_foreign_keys_are_named():
    keys = ["query_embed.weight", "level_embed", *(f"head.{i}" for i in range(6))]
    with pytest.raises(
        ValueError, match="7 of 8 keys are not of an official conditional_detr"
    ) as e:
        convert_state_dict(dict.fromkeys(keys), "conditional_detr")
    assert "level_embed, head.0, head.1, head.2, head.3, ...;" in str(e.value)
    assert "the checkpoint's 'model' entry" in str(e.value)


def test_a_whole_checkpoint_is_recognised():
    checkpoint = dict(model={}, optimizer={}, epoch=50)
    with pytest.raises(ValueError, match=r"3 of 3 keys .*: model, optimizer, epoch; check"):
        convert_state_dict(checkpoint, "conditional_detr")


def test_two_names_for_one_parameter():
    """Neither may win silently."""
    both = {
        f"transformer.encoder.layers.0.{name}.bias": torch.zeros(1)
        for name in ("high_to_low", "high_to_low_1")
    }
    with pytest.raises(ValueError, match=r"1 of 2 keys .*: .*\.high_to_low_1\.bias; check"):
        convert_state_dict(both, "smca_detr")


@pytest.mark.parametrize("method", ["deformable_detr", "sam_detr"])
def test_copies_have_to_be_copies(method):
    key = "bbox_embed.0.layers.2.bias"
    branches = {key: torch.zeros(4), f"transformer.decoder.{key}": torch.ones(4)}
    with pytest.raises(ValueError, match=f"transformer.decoder.{key} should be the same tensor as"):
        convert_state_dict(branches, method)
