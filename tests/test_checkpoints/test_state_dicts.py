"""Official names are renamed, or an error names keys that do not fit."""

import pytest
import torch

from fastdetr_mmdet.checkpoints import convert_state_dict


def test_unknown_method():
    with pytest.raises(ValueError, match=r"'detr'.*conditional_detr"):
        convert_state_dict({}, "detr")


@pytest.mark.parametrize(
    ("keys", "count", "named"),
    [
        (
            ["query_embed.weight", "level_embed", *(f"head.{i}" for i in range(6))],
            "7 of 8",
            "level_embed, head.0, head.1, head.2, head.3, ...",
        ),
        (["model", "optimizer", "epoch"], "3 of 3", "model, optimizer, epoch"),  # a whole file
    ],
)
def test_foreign_keys_are_named(keys, count, named):
    with pytest.raises(ValueError, match="'model' entry") as error:
        convert_state_dict(dict.fromkeys(keys), "conditional_detr")
    assert count in str(error.value) and named in str(error.value)


def test_two_names_for_one_parameter():
    """A collision is an error."""
    both = {
        f"transformer.encoder.layers.0.{name}.bias": torch.zeros(1)
        for name in ("high_to_low", "high_to_low_1")
    }
    with pytest.raises(ValueError, match=r"1 of 2 .*\.high_to_low_1\.bias"):
        convert_state_dict(both, "smca_detr")
