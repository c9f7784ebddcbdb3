"""Dropout acts where the official code has it, in training only: the golden vectors have none."""

import pytest
import torch
from support.models import make_batch, tiny_model
from torch import nn

# Per encoder layer: two residual branches and the inside of the feed-forward block; per decoder
# layer three and one.
LAYERS = dict(encoder=(2, 3), decoder=(3, 4))


@pytest.fixture
def model():
    overrides = {f"transformer__{part}__dropout": 0.25 for part in LAYERS}
    return tiny_model(**overrides)


@pytest.mark.parametrize("training", [True, False])
def test_attention_weights(model, monkeypatch, training):
    seen = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def spy(*args, dropout_p=0.0, **kwargs):
        seen.append(dropout_p)
        return attention(*args, dropout_p=dropout_p, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    model.train(training)._forward(*make_batch())
    # an encoder layer attends once, a decoder layer twice
    assert seen == [0.25 if training else 0.0] * (2 + 2 * 3)


@pytest.mark.parametrize("part", LAYERS)
def test_branches(model, part):
    calls = []
    for module in getattr(model.transformer, part).modules():
        if isinstance(module, nn.Dropout):
            assert module.p == 0.25
            module.register_forward_hook(lambda *_: calls.append(1))
    model._forward(*make_batch())
    layers, uses = LAYERS[part]
    assert len(calls) == layers * uses
